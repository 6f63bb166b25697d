"""The servers that take events: closed to the outside, and unimpressed by what is no event, or not for them."""

from __future__ import annotations

import json
import socket
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from events.catalog import CATALOG, ERASED_USER_ID, SUBSCRIBERS, OrderCancelled, PaymentCaptured, SweepDue
from functions.runtime.ids import new_id, uuid7
from knative.local.demo.shop import Shop
from tests.e2e.platform import LocalPlatform
from tests.security.callers import Callers
from tests.signing import local_key, signed

DOMAINS = ("users", "products", "orders", "payments", "notifications")
JSON = "application/json"


def event_url(local: LocalPlatform, domain: str) -> str:
    return str(local.state()["parts"][domain]["url"])


def event(kind: type[Any], **changed: str) -> dict[str, str]:
    """The headers of one, but for `changed`."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": uuid7(),
        "ce-type": kind.TYPE,
        "ce-source": kind.SOURCE,
        "content-type": JSON,
    }
    return {name: value for name, value in {**headers, **changed}.items() if value}


def genuine(local: LocalPlatform, kind: type[Any], data: bytes, **changed: str) -> dict[str, str]:
    """The headers of one that its source signed."""
    return signed(event(kind, **changed), data, local_key(local.folder, kind.SOURCE[1:]))


async def post(url: str, headers: dict[str, str], data: bytes) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, headers=headers, data=BytesIO(data)) as answer,
    ):
        await answer.read()
        return answer.status


def taken_by(domain: str) -> type[Any]:
    """Some event that the domain subscribes to, with fields that can be wrong."""
    return next(kind for kind, who in SUBSCRIBERS.items() if domain in who and kind is not SweepDue)


@pytest.mark.parametrize("domain", DOMAINS)
async def test_what_is_no_event_gets_a_400(local: LocalPlatform, domain: str) -> None:
    kind, url = taken_by(domain), event_url(local, domain)
    for wrong in (
        {"ce-specversion": ""},
        {"ce-specversion": "9.9"},
        {"ce-id": ""},
        {"ce-source": ""},
        {"ce-type": ""},
        {"ce-type": "shop.unheard.of.v1"},
    ):
        assert await post(url, event(kind, **wrong), b"{}") == 400, wrong
    structured = {"content-type": "application/cloudevents+json"}
    for body in (b"", b"no JSON", b"[]", b"[" * 100_000, b'{"specversion": "1.0"}', b"\xff\xfe"):
        assert await post(url, structured, body) == 400, body[:20]
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 400


@pytest.mark.parametrize("domain", DOMAINS)
async def test_an_event_with_wrong_data_gets_a_422_and_one_without_end_a_413(local: LocalPlatform, domain: str) -> None:
    kind, url = taken_by(domain), event_url(local, domain)
    for data in (b"{}", b"[]", b"null", b"\xff", b'{"order_id": 7, "user_id": 7, "notification_id": 7}'):
        assert await post(url, genuine(local, kind, data), data) == 422, data
    assert await post(url, event(kind), b"x" * (1024 * 1024 + 1)) == 413


async def test_an_event_from_somebody_elses_address_is_refused(local: LocalPlatform) -> None:
    """Each type has one sender; whoever else claims to send it is none."""
    for kind in set(CATALOG.values()) - {SweepDue}:
        for domain in SUBSCRIBERS[kind]:
            for source in ("/evil", "https://evil.example.com", kind.SOURCE + "/x"):
                assert await post(event_url(local, domain), event(kind, **{"ce-source": source}), b"{}") == 400


async def test_an_event_about_what_does_not_exist_changes_nothing(
    local: LocalPlatform, shop: Shop, callers: Callers
) -> None:
    paid = PaymentCaptured(
        order_id=new_id("ord"),
        payment_id=new_id("pay"),
        amount={"amount": 1, "currency": "EUR"},  # type: ignore[arg-type]
    )
    data = json.dumps({"order_id": paid.order_id, "payment_id": paid.payment_id, "amount": paid.amount}).encode()
    headers = genuine(local, PaymentCaptured, data, **{"ce-subject": paid.order_id})
    assert await post(event_url(local, "orders"), headers, data) == 422
    status, _, _ = await shop.raw("GET", f"/v1/orders/{paid.order_id}", who=callers.people["admin"])
    assert status == 404


async def test_an_event_that_is_replayed_changes_nothing(local: LocalPlatform, shop: Shop, callers: Callers) -> None:
    """However often it comes, it is acknowledged, and has the effect of one."""
    before = await shop.stock(callers.ids["product_id"])
    gone = new_id("ord")
    data = json.dumps({"order_id": gone, "user_id": ERASED_USER_ID, "reason": "CUSTOMER_REQUEST"}).encode()
    headers = genuine(local, OrderCancelled, data, **{"ce-subject": gone})
    for _ in range(5):
        assert await post(event_url(local, "products"), headers, data) == 204
        assert await post(event_url(local, "payments"), headers, data) == 204
    assert await shop.stock(callers.ids["product_id"]) == before


@pytest.mark.parametrize("part", [*DOMAINS, "broker"])
def test_no_door_for_events_is_open_beyond_this_machine(local: LocalPlatform, part: str) -> None:
    port = urlsplit(event_url(local, part)).port
    for address in addresses_of_this_machine():
        with socket.socket() as outside:
            outside.settimeout(2)
            assert outside.connect_ex((address, port)) != 0, f"{part} listens at {address}"


def addresses_of_this_machine() -> list[str]:
    """Those that others could reach: the one that leads outside (nothing is sent to find it)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        address = str(probe.getsockname()[0])
    return [] if address.startswith("127.") else [address]
