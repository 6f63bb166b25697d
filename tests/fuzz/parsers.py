"""The parsers of external input, each in a function of bytes that fails if its parser breaks a rule.

Every parser may raise only its expected errors. tests/fuzz/test_parsers.py calls the functions with seeded random
bytes; tests/fuzz/guided.py fuzzes them with atheris.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from events.cloudevent import BadEvent, binary_headers, parse, to_structured
from events.service_keys import PrivateKey, ServiceKeys
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.key_set import Fetched, KeySetCache
from functions.runtime.paging import Listing, cursor_after, position
from functions.runtime.tokens import JwtVerifier, ServiceTokens
from gateway.preconditions import entity_tags
from gateway.request_body import check_content_type
from gateway.request_body import parse as parse_body
from knative.local.broker.config import ConfigError, load
from knative.local.broker.filters import FilterError, compile_filters

_LISTING = Listing("Order", "by_user", "usr_1", True)
_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_CLOCK = ManualClock(datetime(2030, 1, 1, tzinfo=UTC))


async def _keys(since: float | None, cursor: str) -> Fetched:
    jwk = OKPAlgorithm.to_jwk(_KEY.public_key(), as_dict=True)
    return Fetched(json.dumps({"keys": [{**jwk, "kid": "people"}]}))


_ORDERS = PrivateKey("orders", bytes(range(32)))
_SERVICES = ServiceKeys({}).with_key("orders", _ORDERS.public)
_PEOPLE = KeySetCache(_keys, _CLOCK)
_VERIFIER = JwtVerifier(_PEOPLE, _SERVICES, "https://shop.local", "shop", _CLOCK, "products")
_TOKEN = ServiceTokens(_ORDERS, "https://shop.local", _CLOCK).token("products")
Parser = Callable[[bytes], None]


def _refusals(error: ServiceError) -> None:
    if error.code not in (Code.INVALID_ARGUMENT, Code.UNAUTHENTICATED):
        raise error


def cursors(raw: bytes) -> None:
    """Parse a page's cursor; an accepted cursor must be what the service would issue for the same position."""
    text = raw.decode("utf-8", "replace")
    try:
        sort, entity = position(_LISTING, text)
    except ServiceError as error:
        _refusals(error)
    else:
        assert cursor_after(_LISTING, sort, entity) == text


def tokens(raw: bytes) -> None:
    """Verify a bearer token; an accepted token must have the claims of the one that was signed."""
    text = raw.decode("latin-1")
    try:
        who = asyncio.run(_VERIFIER.verify(text))
    except ServiceError as error:
        _refusals(error)
    else:
        assert (who.subject, who.is_service) == ("orders", True)


def filters(raw: bytes) -> None:
    """Compile a Trigger's filters in JSON; a compiled filter must return a boolean for an event."""
    try:
        spec = json.loads(raw)
    except (ValueError, RecursionError):
        return
    if not isinstance(spec, dict):
        return
    try:
        passes = compile_filters(spec)
    except FilterError:
        return
    if passes is not None:
        assert passes({"type": "a", "source": "/b"}) in (True, False)


def manifests(raw: bytes) -> None:
    """Load the broker's configuration in YAML."""
    with suppress(ConfigError):
        load(raw.decode("utf-8", "replace"))


def events(raw: bytes) -> None:
    """Parse a CloudEvents message (header block, empty line, body); it must be possible to send an accepted event."""
    head, _, body = raw.partition(b"\n\n")
    pairs = [line.partition(b":") for line in head.split(b"\n")]
    try:
        found = parse([(name.strip().lower(), value.strip()) for name, _, value in pairs], body)
    except BadEvent:
        return
    for event in found:
        binary_headers(event.attributes)
        to_structured(event)


def bodies(raw: bytes) -> None:
    """Check a content type, and parse a request body."""
    media, _, body = raw.partition(b"\n")
    try:
        check_content_type(media.decode("latin-1"))
        parse_body(body)
    except ServiceError as error:
        _refusals(error)


def tags(raw: bytes) -> None:
    """Parse an If-Match header."""
    try:
        entity_tags(raw.decode("latin-1"))
    except ServiceError as error:
        _refusals(error)


PARSERS: dict[str, Parser] = {f.__name__: f for f in (cursors, tokens, filters, manifests, events, bodies, tags)}
_EVENT = b'{"specversion":"1.0","id":"1","source":"/orders","type":"a","data":{"a":[1,"\\ud83d\\ude00"]}}'
SEEDS: dict[str, list[bytes]] = {
    "cursors": [cursor_after(_LISTING, "2030", "ord_1").encode(), b"AAAA"],
    "tokens": [_TOKEN.encode(), _TOKEN[:-8].encode(), b"a.b.c"],
    "filters": [
        b'{"filters": [{"prefix": {"type": 7}}]}',
        b'{"filter": {"attributes": {"type": ["a"]}}}',
        b'{"filters": {}}',
        b'{"filters": [{"not": {"any": [{"prefix": {"type": "a"}}, {"exact": {"source": "b"}}]}}]}',
    ],
    "manifests": [
        b"apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: default}\nspec: {delivery: {retry: 5}}\n"
    ],
    "events": [
        b"ce-specversion:1.0\nce-id:1\nce-source:/orders\nce-type:a\n\n{}",
        b"content-type:application/cloudevents+json\n\n" + _EVENT,
        b"content-type:application/cloudevents+json\n\n" + b'{"a":' * 5000,
        b"content-type:application/cloudevents-batch+json; charset=utf-16\n\n" + b"[" * 5000,
    ],
    "bodies": [
        b"application/json\n" + b'{"a":' * 900,
        b'application/json\n{"a": 1e999, "b": 1.0, "c": -0.0}',
        b'application/json; charset=utf-8\n{"a": [1, 2.5, null, "x"]}',
    ],
    "tags": [b'W/"1", "2" , *'],
}
