"""Watching an order: what a stream sends, when it ends, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from functions.orders import service
from functions.orders.domain import Order, Status
from functions.orders.store import Orders
from functions.orders.tests.world import ADA, BOSS, World, captured, rejected, reserved
from functions.orders.watching import Watchers
from functions.runtime.errors import Code, ServiceError, unavailable

SOON = 5.0  # seconds until a test gives up; none waits for it in vain
FAST = 0.01


class CountingStore:
    """Counts reads of watched orders, and fails as many of them as told."""

    def __init__(self, world: World) -> None:
        self._store = world.memory
        self.reads = 0
        self.failures: list[Exception] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def get_many(self, kind: type[Order], ids: list[str]) -> dict[str, Order]:
        self.reads += 1
        if self.failures:
            raise self.failures.pop()
        return await self._store.get_many(kind, ids)


async def following(world: World, order: Order) -> AsyncGenerator[Order, None]:
    return await service.watch(world.orders, world.watchers, ADA, order.id)


async def next_of(stream: AsyncGenerator[Order, None]) -> Order:
    async with asyncio.timeout(SOON):
        return await anext(stream)


async def all_of(stream: AsyncGenerator[Order, None]) -> list[Status]:
    async with asyncio.timeout(SOON):
        return [order.status async for order in stream]


async def test_a_watcher_sees_the_order_at_once_and_each_change_until_it_is_final(world: World) -> None:
    order = await world.place()
    stream = await following(world, order)
    assert (await next_of(stream)).status is Status.PLACED
    await world.hear(reserved(order))
    assert (await next_of(stream)).status is Status.RESERVED
    await world.hear(captured(order))
    assert (await next_of(stream)).status is Status.CONFIRMED
    await service.ship(world.orders, world.clock, BOSS, order.id)
    await service.deliver(world.orders, world.clock, BOSS, order.id)
    assert (await all_of(stream))[-1] is Status.DELIVERED


async def test_a_final_order_is_sent_once_and_the_stream_ends(world: World) -> None:
    order = await world.place()
    await world.hear(rejected(order))
    assert await all_of(await following(world, order)) == [Status.CANCELLED]


async def test_a_slow_watcher_gets_the_newest_state_with_the_whole_timeline(world: World) -> None:
    order = await world.place()
    stream = await following(world, order)
    await next_of(stream)
    await world.hear(reserved(order))
    await world.hear(captured(order))
    newest = await next_of(stream)
    assert newest.status is Status.CONFIRMED
    assert len(newest.timeline) == 3
    await stream.aclose()


async def test_a_change_by_another_process_is_found_by_polling() -> None:
    world = World(watch_interval=FAST)
    elsewhere = Orders(world.memory)
    order = await world.place()
    async with aclosing(await following(world, order)) as stream:
        await next_of(stream)
        await service.cancel(elsewhere, world.clock, ADA, order.id, "")
        assert await all_of(stream) == [Status.CANCELLED]


async def test_a_hundred_watchers_cost_one_read_a_change() -> None:
    world = World()
    store = CountingStore(world)
    watchers = Watchers(store, interval=60, limit=100, limit_each=100)  # type: ignore[arg-type] # duck-typed
    world.orders = Orders(world.memory, watchers.changed)
    order = await world.place()
    streams = [watchers.follow(order.id, ADA.subject) for _ in range(100)]
    for stream in streams:
        await next_of(stream)
    await service.cancel(world.orders, world.clock, ADA, order.id, "")
    assert await asyncio.gather(*[all_of(stream) for stream in streams]) == [[Status.CANCELLED]] * 100
    assert store.reads == 1


async def test_too_many_watchers_are_turned_away_and_a_place_that_is_left_is_free_again(world: World) -> None:
    order = await world.place()
    watchers = Watchers(world.store, interval=60, limit=1, limit_each=1)
    first, second = watchers.follow(order.id, ADA.subject), watchers.follow(order.id, ADA.subject)
    await next_of(first)
    with pytest.raises(ServiceError) as caught:
        await next_of(second)
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS")
    await first.aclose()
    third = watchers.follow(order.id, ADA.subject)
    await next_of(third)
    await third.aclose()


async def test_a_stream_outlives_reads_that_fail() -> None:
    world = World()
    store = CountingStore(world)
    store.failures = [ValueError("a bug"), unavailable("STORE_UNAVAILABLE", "Try again.")]
    watchers = Watchers(store, interval=FAST, limit=1, limit_each=1)  # type: ignore[arg-type] # duck-typed
    order = await world.place()
    stream = watchers.follow(order.id, ADA.subject)
    await next_of(stream)
    await world.hear(rejected(order))
    assert await all_of(stream) == [Status.CANCELLED]
    assert not store.failures


async def test_when_the_process_ends_a_watcher_is_told_to_come_back(world: World) -> None:
    order = await world.place()
    stream = await following(world, order)
    await next_of(stream)
    waiting = asyncio.create_task(next_of(stream))
    await asyncio.sleep(0)
    await world.watchers.close()
    for attempt in (waiting, next_of(await following(world, order))):
        with pytest.raises(ServiceError) as caught:
            await attempt
        assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "SHUTTING_DOWN")


async def test_nothing_runs_when_nobody_watches(world: World) -> None:
    order = await world.place()
    before = asyncio.all_tasks()
    stream = await following(world, order)
    await next_of(stream)
    (reader,) = asyncio.all_tasks() - before
    await stream.aclose()
    async with asyncio.timeout(SOON):
        await reader
    await world.hear(reserved(order))


async def test_a_watcher_that_is_cancelled_leaves_at_once(world: World) -> None:
    order = await world.place()
    stream = await following(world, order)
    await next_of(stream)
    waiting = asyncio.create_task(next_of(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not world.watchers._by_order
