"""The copy of the key set that all verifiers of a process share."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from functions.runtime import grpc_client
from functions.runtime.clock import ManualClock
from functions.runtime.errors import ServiceError, unavailable
from functions.runtime.key_set import Fetched, KeySetCache, RevocationList, Revoked
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
        self.revoked: list[Revoked] = []
        self.sent = 0
        self.now = 0.0

    async def fetch(self, since: float | None, cursor: str) -> Fetched:
        self.fetches += 1
        self.traces.append(context.current().trace_id)
        self.bounds.append(grpc_client.deadline())
        await self.gate.wait()
        if self.down:
            raise unavailable("SERVICE_UNAVAILABLE", "down")
        return self.answer(since, cursor)

    def answer(self, since: float | None, cursor: str) -> Fetched:
        """The revocations since then, three to a page."""
        wanted = [each for each in self.revoked if since is None or each.at >= since]
        start = int(cursor or 0)
        page = wanted[start : start + 3]
        self.sent += len(page)
        more = str(start + 3) if start + 3 < len(wanted) else ""
        return Fetched(json.dumps({"keys": self.keys}), page, more, self.now)


async def settled(cache: KeySetCache) -> None:
    """Let a fetch in the background end."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_fetch_has_neither_the_deadline_nor_the_trace_of_who_came_first() -> None:
    users, clock = Users(), ManualClock()
    mine = context.incoming(None, None)
    context.enter(mine)
    grpc_client.enter_deadline(0.005)

    await KeySetCache(users.fetch, clock).current()

    assert users.bounds == [None]
    assert users.traces[0] not in {"", mine.trace_id}


async def test_a_caller_that_gives_up_leaves_the_fetch_to_the_others() -> None:
    users, clock = Users(), ManualClock()
    users.gate.clear()
    cache = KeySetCache(users.fetch, clock)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await cache.current()
    other = asyncio.create_task(cache.current())
    users.gate.set()

    assert (await other).keys.keys() == {"k1"}
    assert users.fetches == 1


async def test_a_failed_fetch_does_not_make_the_copy_young() -> None:
    users, clock = Users(), ManualClock()
    cache = KeySetCache(users.fetch, clock)
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
    cache = KeySetCache(users.fetch, clock)
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
    cache = KeySetCache(users.fetch, clock)
    for _ in range(100):
        with pytest.raises(ServiceError) as refused:
            await cache.current()
        assert refused.value.reason == "KEYS_UNAVAILABLE"
    assert users.fetches == 1


async def test_a_young_copy_is_refreshed_while_callers_go_on_with_it() -> None:
    users, clock = Users(), ManualClock()
    cache = KeySetCache(users.fetch, clock)
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
    cache = KeySetCache(users.fetch, clock)
    await cache.current()
    users.down = True
    clock.advance(timedelta(hours=1))
    assert json.loads(await cache.published()) == {"keys": [KEY]}
    with pytest.raises(ServiceError):
        await cache.current()


async def test_a_clock_that_was_set_back_makes_no_copy_young() -> None:
    users, clock = Users(), ManualClock()
    cache = KeySetCache(users.fetch, clock)
    await cache.current()
    clock.advance(timedelta(days=-1))
    await cache.current()
    assert users.fetches == 2


async def test_a_changed_key_set_is_fetched_before_its_next_use() -> None:
    users, clock = Users(), ManualClock()
    cache = KeySetCache(users.fetch, clock)
    await cache.current()
    cache.forget()
    users.keys = [{**KEY, "kid": "k2"}]
    assert (await cache.current()).keys.keys() == {"k2"}


async def test_revocations_are_read_by_pages_and_then_only_the_new_ones() -> None:
    users, clock = Users(), ManualClock()
    start = clock.now().timestamp()
    users.revoked = [Revoked(f"d{number}", start + number, start + number) for number in range(10)]
    users.now = start + 10
    cache = KeySetCache(users.fetch, clock)
    assert len((await cache.current()).revoked) == users.sent == 10

    users.revoked.append(Revoked("late", start + 11, start + 11))
    clock.advance(timedelta(seconds=45))
    void = (await cache.current()).revoked
    assert users.sent == 11
    assert void.has("late", "", start + 10.9)
    assert void.has("", "d0", start - 1)
    assert not void.has("late", "d0", start + 11)


async def test_revocations_are_forgotten_once_their_tokens_have_expired() -> None:
    users, clock = Users(), ManualClock()
    start = clock.now().timestamp()
    users.revoked = [Revoked("d", start, start)]
    cache = KeySetCache(users.fetch, clock)
    assert len((await cache.current()).revoked) == 1
    clock.advance(timedelta(minutes=17))
    users.revoked = []
    assert len((await cache.current()).revoked) == 0


def test_beyond_the_most_that_is_kept_nobody_who_was_revoked_gets_in() -> None:
    void = RevocationList(limit=100)
    void.add([Revoked(f"d{number}", float(number), float(number)) for number in range(150)])
    assert len(void) == 100
    assert all(void.has(f"d{number}", "", number - 0.5) for number in range(150))
    assert void.has("somebody else", "", 40.0)  # refreshes their token
    assert not void.has("somebody else", "", 60.0)


def test_of_two_revocations_the_later_counts_whatever_comes_first() -> None:
    void = RevocationList()
    void.add([Revoked("d", 20.0, 20.0), Revoked("d", 10.0, 10.0)])
    assert void.has("d", "", 15.0)
