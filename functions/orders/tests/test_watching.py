"""Streams of an order: what they send, when they end, and what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from functions.orders.domain import Order, Status
from functions.orders.service import CancelOrder
from functions.orders.tests.shop import ADA, ADMINISTRATOR, Shop, captured, orders_service, rejected, reserved
from functions.orders.watchers import Watchers
from functions.runtime.errors import Code, ServiceError, unavailable

SOON = 5.0  # seconds until a test gives up; none waits for it in vain
FAST = 0.01


class CountingStore:
    """Counts reads of watched orders, and raises `failures` first."""

    def __init__(self, shop: Shop) -> None:
        self._store = shop.memory
        self.reads = 0
        self.failures: list[Exception] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def get_many(self, kind: type[Order], ids: list[str]) -> dict[str, Order]:
        self.reads += 1
        if self.failures:
            raise self.failures.pop()
        return await self._store.get_many(kind, ids)


async def following(shop: Shop, order: Order) -> AsyncGenerator[Order, None]:
    return await shop.orders.watch(order.id, ADA)


async def next_of(stream: AsyncGenerator[Order, None]) -> Order:
    async with asyncio.timeout(SOON):
        return await anext(stream)


async def all_of(stream: AsyncGenerator[Order, None]) -> list[Status]:
    async with asyncio.timeout(SOON):
        return [order.status async for order in stream]


async def test_a_watcher_sees_the_order_at_once_and_each_change_until_it_is_final(shop: Shop) -> None:
    order = await shop.place()
    stream = await following(shop, order)
    assert (await next_of(stream)).status is Status.PLACED
    await shop.receive(reserved(order))
    assert (await next_of(stream)).status is Status.RESERVED
    await shop.receive(captured(order))
    assert (await next_of(stream)).status is Status.CONFIRMED
    await shop.orders.ship(order.id, ADMINISTRATOR)
    await shop.orders.deliver(order.id, ADMINISTRATOR)
    assert (await all_of(stream))[-1] is Status.DELIVERED


async def test_a_final_order_is_sent_once_and_the_stream_ends(shop: Shop) -> None:
    order = await shop.place()
    await shop.receive(rejected(order))
    assert await all_of(await following(shop, order)) == [Status.CANCELLED]


async def test_a_slow_watcher_gets_the_newest_state_with_the_whole_timeline(shop: Shop) -> None:
    order = await shop.place()
    stream = await following(shop, order)
    await next_of(stream)
    await shop.receive(reserved(order))
    await shop.receive(captured(order))
    newest = await next_of(stream)
    assert newest.status is Status.CONFIRMED
    assert len(newest.timeline) == 3
    await stream.aclose()


async def test_a_change_by_another_process_is_found_by_polling() -> None:
    shop = Shop(watch_interval=FAST)
    elsewhere = orders_service(shop.memory, shop.clock, shop.catalogue)
    order = await shop.place()
    async with aclosing(await following(shop, order)) as stream:
        await next_of(stream)
        await elsewhere.cancel(CancelOrder(order.id), ADA)
        assert await all_of(stream) == [Status.CANCELLED]


async def test_a_hundred_watchers_cost_one_read_a_change() -> None:
    shop = Shop()
    store = CountingStore(shop)
    watchers = Watchers(store, interval=60, limit=100, limit_each=100)  # type: ignore[arg-type] # duck-typed
    shop.orders = shop.compose(watchers=watchers)
    order = await shop.place()
    streams = [watchers.watch(order.id, ADA.subject) for _ in range(100)]
    for stream in streams:
        await next_of(stream)
    await shop.orders.cancel(CancelOrder(order.id), ADA)
    assert await asyncio.gather(*[all_of(stream) for stream in streams]) == [[Status.CANCELLED]] * 100
    assert store.reads == 1


async def test_too_many_watchers_are_turned_away_and_a_place_that_is_left_is_free_again(shop: Shop) -> None:
    order = await shop.place()
    watchers = Watchers(shop.store, interval=60, limit=1, limit_each=1)
    first, second = watchers.watch(order.id, ADA.subject), watchers.watch(order.id, ADA.subject)
    await next_of(first)
    with pytest.raises(ServiceError) as caught:
        await next_of(second)
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS")
    await first.aclose()
    third = watchers.watch(order.id, ADA.subject)
    await next_of(third)
    await third.aclose()


async def test_a_stream_outlives_reads_that_fail() -> None:
    shop = Shop()
    store = CountingStore(shop)
    store.failures = [ValueError("a bug"), unavailable("STORE_UNAVAILABLE", "Try again.")]
    watchers = Watchers(store, interval=FAST, limit=1, limit_each=1)  # type: ignore[arg-type] # duck-typed
    order = await shop.place()
    stream = watchers.watch(order.id, ADA.subject)
    await next_of(stream)
    await shop.receive(rejected(order))
    assert await all_of(stream) == [Status.CANCELLED]
    assert not store.failures


async def test_when_the_process_ends_a_watcher_is_told_to_come_back(shop: Shop) -> None:
    order = await shop.place()
    stream = await following(shop, order)
    await next_of(stream)
    waiting = asyncio.create_task(next_of(stream))
    await asyncio.sleep(0)
    await shop.watchers.close()
    for attempt in (waiting, next_of(await following(shop, order))):
        with pytest.raises(ServiceError) as caught:
            await attempt
        assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "SHUTTING_DOWN")


async def test_nothing_runs_when_nobody_watches(shop: Shop) -> None:
    order = await shop.place()
    before = asyncio.all_tasks()
    stream = await following(shop, order)
    await next_of(stream)
    (reader,) = asyncio.all_tasks() - before
    await stream.aclose()
    async with asyncio.timeout(SOON):
        await reader
    await shop.receive(reserved(order))


async def test_a_watcher_that_is_cancelled_leaves_at_once(shop: Shop) -> None:
    order = await shop.place()
    stream = await following(shop, order)
    await next_of(stream)
    waiting = asyncio.create_task(next_of(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not shop.watchers._by_order
