"""Stream tickets: each opens one order once within 30 seconds, and no secret of it is stored."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from functions.orders.store import MAPPINGS
from functions.orders.stream_tickets import TICKET_LIFETIME, IssuedTicket
from functions.orders.tests.shop import ADA, BOB, Shop
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import ANONYMOUS
from functions.runtime.store.sqlite.store import SQLiteStore

TOKEN = "header.payload.signature"
CALLER = replace(ADA, token=TOKEN)


async def issued(shop: Shop, order_id: str) -> IssuedTicket:
    return await shop.orders.create_stream_ticket(order_id, CALLER)


async def redeem(shop: Shop, order_id: str, ticket: str) -> str:
    return await shop.orders.redeem_stream_ticket(order_id, ticket)


async def test_a_ticket_stands_for_its_callers_token() -> None:
    shop = Shop()
    order = await shop.place()
    ticket = await issued(shop, order.id)
    assert ticket.expires_at == shop.clock.now() + TICKET_LIFETIME
    assert await redeem(shop, order.id, ticket.ticket) == TOKEN


async def test_a_ticket_works_once_even_when_it_is_shown_ten_times_at_once() -> None:
    shop = Shop()
    order = await shop.place()
    ticket = (await issued(shop, order.id)).ticket
    shown = [redeem(shop, order.id, ticket) for _ in range(10)]
    results = await asyncio.gather(*shown, return_exceptions=True)
    assert results.count(TOKEN) == 1
    reasons = [result.reason for result in results if isinstance(result, ServiceError)]
    assert reasons == ["STREAM_TICKET_INVALID"] * 9


async def test_a_ticket_does_not_outlive_its_half_minute() -> None:
    shop = Shop()
    order = await shop.place()
    ticket = (await issued(shop, order.id)).ticket
    shop.clock.advance(TICKET_LIFETIME + timedelta(seconds=1))
    with pytest.raises(ServiceError, match="expired"):
        await redeem(shop, order.id, ticket)


async def test_a_ticket_opens_no_other_order() -> None:
    shop = Shop()
    one, other = await shop.place(), await shop.place()
    ticket = (await issued(shop, one.id)).ticket
    with pytest.raises(ServiceError) as refused:
        await redeem(shop, other.id, ticket)
    assert refused.value.code is Code.UNAUTHENTICATED


@pytest.mark.parametrize("ticket", ["", "tkt_", "x", "tkt_" + "A" * 64, "tkt_" + "é" * 64, "tkt_" + "A" * 1000])
async def test_what_is_no_ticket_opens_nothing(ticket: str) -> None:
    shop = Shop()
    order = await shop.place()
    await issued(shop, order.id)
    with pytest.raises(ServiceError) as refused:
        await redeem(shop, order.id, ticket)
    assert refused.value.reason == "STREAM_TICKET_INVALID"


async def test_only_who_may_see_an_order_gets_a_ticket_for_it() -> None:
    shop = Shop()
    order = await shop.place()
    for caller in (BOB, ANONYMOUS):
        with pytest.raises(ServiceError):
            await shop.orders.create_stream_ticket(order.id, caller)


def written_to(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_neither_ticket_nor_token_is_stored_in_plain(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "orders.db", MAPPINGS, ManualClock())
    shop = Shop(store)
    order = await shop.place()
    ticket = (await issued(shop, order.id)).ticket
    await store.close()
    written = written_to(tmp_path)
    assert order.id.encode() in written
    for secret in (ticket, ticket[4:26], ticket[26:], TOKEN, "payload"):
        assert secret.encode() not in written
