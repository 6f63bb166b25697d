"""The copy of the key set that all verifiers of a process share."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from functions.runtime import peers
from functions.runtime.clock import ManualClock
from functions.runtime.errors import ServiceError, unavailable
from functions.runtime.key_set import KeySetCache
from observability import context

KEY = {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


class Users:
    """The users service: what it answers, how long it takes, and what the calls carried."""

    def __init__(self) -> None:
        self.keys = [KEY]
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.fetches = 0
        self.traces: list[str] = []
        self.bounds: list[float | None] = []

    async def jwks(self) -> str:
        self.fetches += 1
        self.traces.append(context.current().trace_id)
        self.bounds.append(peers.deadline())
        await self.gate.wait()
        if self.down:
            raise unavailable("SERVICE_UNAVAILABLE", "down")
        return json.dumps({"keys": self.keys})


async def settled(cache: KeySetCache) -> None:
    """Let a fetch in the background end."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_fetch_has_neither_the_deadline_nor_the_trace_of_who_came_first() -> None:
    users, clock = Users(), ManualClock()
    mine = context.incoming(None, None)
    context.enter(mine)
    peers.enter_deadline(0.005)

    await KeySetCache(users.jwks, clock).current()

    assert users.bounds == [None]
    assert users.traces[0] not in {"", mine.trace_id}


async def test_a_caller_that_gives_up_leaves_the_fetch_to_the_others() -> None:
    users, clock = Users(), ManualClock()
    users.gate.clear()
    cache = KeySetCache(users.jwks, clock)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await cache.current()
    other = asyncio.create_task(cache.current())
    users.gate.set()

    assert (await other).keys.keys() == {"k1"}
    assert users.fetches == 1


async def test_a_failed_fetch_does_not_make_the_copy_young() -> None:
    users, clock = Users(), ManualClock()
    cache = KeySetCache(users.jwks, clock)
    await cache.current()
    users.down = True
    clock.advance(timedelta(seconds=50))
    await cache.current()
    users.down = False
    clock.advance(timedelta(seconds=1))
    await cache.current()
    await settled(cache)

    assert users.fetches == 3


async def test_an_outage_is_no_storm_and_holds_nobody_up() -> None:
    users, clock = Users(), ManualClock()
    cache = KeySetCache(users.jwks, clock)
    await cache.current()
    users.down = True
    for _ in range(2400):  # four minutes of ten calls a second
        clock.advance(timedelta(seconds=0.1))
        await cache.current()
        await asyncio.sleep(0)
    assert users.fetches < 40

    users.gate.clear()  # from now on it does not even answer
    clock.advance(timedelta(seconds=10))
    async with asyncio.timeout(0.5):
        await cache.current()
    users.gate.set()


async def test_without_a_copy_an_outage_is_told_at_once() -> None:
    users, clock = Users(), ManualClock()
    users.down = True
    cache = KeySetCache(users.jwks, clock)
    for _ in range(100):
        with pytest.raises(ServiceError) as refused:
            await cache.current()
        assert refused.value.reason == "KEYS_UNAVAILABLE"
    assert users.fetches == 1


async def test_a_young_copy_is_refreshed_while_callers_go_on_with_it() -> None:
    users, clock = Users(), ManualClock()
    cache = KeySetCache(users.jwks, clock)
    await cache.current()
    users.gate.clear()
    clock.advance(timedelta(seconds=20))
    for _ in range(10):
        await cache.current()
    users.keys = [{**KEY, "kid": "k2"}]
    users.gate.set()
    await settled(cache)

    assert (await cache.current()).keys.keys() == {"k2"}
    assert users.fetches == 2


async def test_the_published_keys_outlive_any_outage() -> None:
    users, clock = Users(), ManualClock()
    cache = KeySetCache(users.jwks, clock)
    await cache.current()
    users.down = True
    clock.advance(timedelta(hours=1))
    assert json.loads(await cache.published()) == {"keys": [KEY]}
    with pytest.raises(ServiceError):
        await cache.current()


async def test_a_clock_that_was_set_back_makes_no_copy_young() -> None:
    users, clock = Users(), ManualClock()
    cache = KeySetCache(users.jwks, clock)
    await cache.current()
    clock.advance(timedelta(days=-1))
    await cache.current()
    assert users.fetches == 2


async def test_a_changed_key_set_is_fetched_before_its_next_use() -> None:
    users, clock = Users(), ManualClock()
    cache = KeySetCache(users.jwks, clock)
    await cache.current()
    cache.forget()
    users.keys = [{**KEY, "kid": "k2"}]
    assert (await cache.current()).keys.keys() == {"k2"}
