"""What comes from outside stays outside: claimed identities, borrowed trails, fields that nobody asked for."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from knative.local.demo.shop import Shop
from tests.e2e.platform import LocalPlatform
from tests.security.callers import Callers
from tests.security.test_routes import ADMIN, LEAVING, ROUTES, body_of

IDENTITY = [
    "x-user-id",
    "x-user",
    "x-roles",
    "x-user-roles",
    "x-forwarded-user",
    "x-auth-request-user",
    "x-subject",
]
TRAILS = [
    "x-correlation-id",
    "x-request-id",
    "x-b3-traceid",
    "traceparent",
    "tracestate",
    "baggage",
    "grpc-trace-bin",
]


def spellings(name: str) -> list[str]:
    """Ways to write a header that some server takes for the same."""
    return list(dict.fromkeys([name, name.upper(), name.title(), name.replace("-", "_"), f"Grpc-Metadata-{name}"]))


async def request(
    callers: Callers, headers: list[tuple[str, str]], path: str = "/v1/admin/users", caller: str = "stranger"
) -> tuple[int, Any]:
    sent = [*headers, ("authorization", f"Bearer {callers.token(caller)}")]
    async with (
        aiohttp.ClientSession() as session,
        session.get(callers.platform.base_url + path, headers=sent) as answer,
    ):
        return answer.status, answer.headers


@pytest.mark.parametrize("name", IDENTITY)
async def test_a_claimed_identity_changes_nothing(callers: Callers, name: str) -> None:
    admin = callers.people["admin"].id
    for spelling in spellings(name):
        for value in (admin, "admin", "service"):
            status, _ = await request(callers, [(spelling, value), (spelling, value)])
            assert status == 403, spelling


async def test_a_second_authorization_header_changes_nothing(callers: Callers) -> None:
    status, _ = await request(callers, [("Authorization", f"Bearer {callers.token('admin')}")])
    assert status in (400, 401, 403)


async def test_a_borrowed_trail_reaches_no_part(callers: Callers, local: LocalPlatform) -> None:
    """Only a well-formed correlation id and trace are taken over; whatever else is sent leaves no mark anywhere."""
    mark = f"evil {uuid4().hex}"
    headers = [(spelling, mark) for name in (*TRAILS, *IDENTITY) for spelling in spellings(name)]
    status, answered = await request(callers, headers, "/v1/users/me")
    assert status == 200
    assert mark not in str(answered)

    async def logged() -> bool:
        lines = [*local.log("gateway"), *local.log("users")]
        return any(line.get("correlation_id") == answered["x-correlation-id"] for line in lines)

    deadline = time.monotonic() + 20
    while not await logged():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert not [path for path in (local.folder / "logs").iterdir() if mark in path.read_text()]


TAKE_NOTHING = ("/ship", "/deliver", "/rotate", "/replay", "/email-verification", "/stream-tickets")
TAKE_ANYTHING = ("/stripe", "/ses")  # what providers send may grow
WRITES = [
    route
    for route in ROUTES
    if route.startswith(("POST", "PUT", "PATCH")) and not route.endswith(TAKE_NOTHING + TAKE_ANYTHING)
]


@pytest.mark.parametrize("route", WRITES)
async def test_fields_that_were_not_asked_for_are_refused(callers: Callers, shop: Shop, route: str) -> None:
    body = body_of(route, callers)
    method, path = route.split(" ")
    may = "admin" if ROUTES[route] is ADMIN else "leaving" if ROUTES[route] is LEAVING else "customer"
    for field in {"role", "price", "status", "user_id", "__proto__"} - body.keys():
        status, problem, _ = await shop.raw(
            method,
            path.format(**callers.ids),
            who=callers.people[may],
            json={**body, field: "admin"},
            headers={"idempotency-key": uuid4().hex},
        )
        assert (status, problem["code"]) == (400, "INVALID_ARGUMENT"), field
        assert field in [error["field"] for error in problem["errors"]]


@pytest.mark.parametrize("depth", [33, 1_000, 100_000])
@pytest.mark.parametrize("bracket", ["[", '{"a":'])
async def test_json_nested_too_deep_is_refused(shop: Shop, depth: int, bracket: str) -> None:
    closing = "]" if bracket == "[" else "}"
    raw = f'{{"email": {bracket * depth}1{closing * depth}}}'.encode()
    headers = {"content-type": "application/json"}
    status, problem, _ = await shop.raw("POST", "/v1/users", data=raw, headers=headers)
    assert (status, problem["reason"]) == (400, "MALFORMED_JSON")


async def test_numbers_and_texts_without_end_are_refused(shop: Shop, callers: Callers) -> None:
    path = f"/v1/products/{callers.ids['product_id']}/stock"
    for raw in (
        b'{"on_hand": 1e999}',
        b'{"on_hand": %b}' % (b"9" * 5000),
        b'{"on_hand": NaN}',
        b'{"on_hand": true}',
    ):
        status, _, _ = await shop.raw(
            "PUT", path, who=callers.people["admin"], data=raw, headers={"content-type": "application/json"}
        )
        assert status == 400, raw[:20]
    body = json.dumps({"email": "a@example.com", "password": "x" * 500_000, "name": "x"}).encode()
    status, _, _ = await shop.raw("POST", "/v1/users", data=body, headers={"content-type": "application/json"})
    assert status == 400


@pytest.mark.parametrize("path", ["/v1/products", "/v1/nothing", "/v1/orders", "/docs", "/.well-known/jwks.json"])
async def test_every_answer_says_how_a_browser_must_treat_it(shop: Shop, path: str) -> None:
    _, _, headers = await shop.raw("GET", path)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


async def test_answers_to_a_person_are_kept_by_no_cache(shop: Shop, callers: Callers) -> None:
    for path in ("/v1/users/me", "/v1/orders", "/v1/notifications"):
        _, _, headers = await shop.raw("GET", path, who=callers.people["customer"])
        assert "no-store" in headers["cache-control"] or "private" in headers["cache-control"], path
