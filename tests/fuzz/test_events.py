"""Servers that take events, fuzzed with messages of all three modes, valid and invalid, and with random bytes."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from events.catalog import CATALOG
from functions.runtime.ids import uuid7
from tests.e2e.platform import LocalPlatform
from tests.fuzz.conftest import MINUTES, examples, rounds

SECONDS = 15.0
"""Whoever needs longer for one message hangs."""
EXAMPLES = 200 if MINUTES else 40
PARTS = ("broker", "users", "products", "orders", "payments", "notifications")
Message = tuple[list[tuple[bytes, bytes]], bytes]


def attributes(kind: str) -> dict[str, Any]:
    """Of an event that would be taken, as far as its data go."""
    return {"specversion": "1.0", "id": uuid7(), "type": kind, "source": CATALOG[kind].SOURCE}


# Values as they stand in a header: no line ends, which would make another message of it.
_values = st.one_of(
    st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\r\n")),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass").translate(None, b"\r\n")),
    st.sampled_from(
        [
            b"",
            b" ",
            b"%",
            b"%zz",
            b"%ED%A0%80",
            b'"',
            b'"\\',
            b'"%00"',
            b"1.0",
            b"0.3",
            b"\xff",
            b"/orders",
            b"a" * 9000,
        ]
    ),
)
_names = st.sampled_from(
    [
        *attributes("shop.order.placed.v1"),
        "subject",
        "time",
        "dataschema",
        "datacontenttype",
        "data",
        "correlationid",
    ]
) | st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}", fullmatch=True).map(lambda raw: raw.decode())
_charsets = st.sampled_from(
    ["", "utf-8", "UTF8", "utf-7", "utf-16", "utf-32", "us-ascii", "iso-8859-1", "rot13", "idna", "\xff", '"']
)
_kinds = st.sampled_from(sorted(CATALOG))
_times = st.sampled_from(["", "now", "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:60+99:99"])
_texts = st.text(st.characters(codec=None), max_size=40)
_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**30, 10**400),
    st.floats(),
    _texts,
    st.just("ord_" + "0" * 32),
)
_json = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts | _names, inner, max_size=5),
    max_leaves=12,
)


def dumped(value: Any) -> bytes:
    """With NaN, lone surrogates and all: what Python writes and others may not read."""
    return json.dumps(value).encode()


_bodies = st.one_of(
    _json.map(dumped),
    st.binary(max_size=200),
    st.tuples(st.sampled_from([b"[", b'{"a":', b'"', b"-", b"9", b"\\u"]), st.integers(1, 50_000)).map(
        lambda part: part[0] * part[1]
    ),
    _json.map(lambda value: dumped(value)[:-1]),
    st.just(b"\xef\xbb\xbf{}"),
)


@st.composite
def binary(draw: st.DrawFn) -> Message:
    """A right event, but for some headers that are changed, doubled or left out."""
    headers = [(f"ce-{name}".encode(), str(value).encode()) for name, value in attributes(draw(_kinds)).items()]
    for _ in range(draw(st.integers(0, 3))):
        name = f"ce-{draw(_names)}".encode()
        change = draw(st.sampled_from(["set", "add", "drop"]))
        headers = [pair for pair in headers if change == "add" or pair[0] != name]
        headers += [(name, draw(_values))] if change != "drop" else []
    return [*headers, (b"ce-time", draw(_times).encode()), (b"content-type", draw(_values))], draw(_bodies)


def changed(draw: st.DrawFn) -> dict[str, Any]:
    """The members of an event in JSON."""
    event: dict[str, Any] = attributes(draw(_kinds)) | {"data": draw(_json)}
    event |= draw(st.dictionaries(_names | st.just("data_base64"), _json, max_size=3))
    return event


@st.composite
def formatted(draw: st.DrawFn) -> Message:
    """One event in JSON, or several, or what only says so."""
    batched = draw(st.booleans())
    body = dumped([changed(draw) for _ in range(draw(st.integers(0, 3)))] if batched else changed(draw))
    body = draw(st.sampled_from([body, body, body[:-1], body.decode().encode("utf-16")]) | _bodies)
    media = f"application/cloudevents{'-batch' if batched else ''}+json; charset={draw(_charsets)}"
    return [(b"content-type", media.encode("latin-1"))], body


async def answered(url: str, message: Message) -> int:
    """The status; 0 where the connection was closed without one."""
    parts = urlsplit(url)
    headers, body = message
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = [b"POST / HTTP/1.1", b"host: x", b"connection: close", b"content-length: %d" % len(body)]
    lines += [name + b": " + value for name, value in headers]
    try:
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        await writer.drain()
        status = await reader.readline()
    except ConnectionError:
        return 0
    finally:
        writer.close()
    return int(status.split()[1]) if status else 0


async def flood(url: str, messages: list[Message]) -> list[int]:
    """All at once, and each answered in time."""
    async with asyncio.timeout(SECONDS):
        return await asyncio.gather(*(answered(url, message) for message in messages))


@pytest.mark.parametrize("part", PARTS)
def test_no_message_is_a_fault_of_the_door_that_it_is_sent_to(platform: LocalPlatform, part: str) -> None:
    url = str(platform.state()["parts"][part]["url"])
    for number in rounds(0.03):

        @seed(number)
        @examples(EXAMPLES)
        @given(st.lists(binary() | formatted(), min_size=1, max_size=6))
        def attack(messages: list[Message]) -> None:
            statuses = asyncio.run(flood(url, messages))
            wrong = [(m, s) for m, s in zip(messages, statuses, strict=True) if not 200 <= s < 500]
            assert not wrong

        attack()
