"""Every event that was committed reaches the broker, whatever the broker, the store or the process does."""

from __future__ import annotations

import asyncio
import random

from events.tests.fakes import (
    LONG_AGO,
    START,
    TRACE,
    Broker,
    FakeOutboxStore,
    ManualClock,
    outbox,
    row,
    until,
)
from observability import context


async def test_a_committed_event_is_published_and_removed_without_holding_its_caller() -> None:
    rows, broker = FakeOutboxStore(), Broker()
    publishing = outbox(rows, broker)
    publishing.start()
    broker.gate.clear()

    rows.commit(row(1), row(2))  # returns though the broker does not answer
    await until(lambda: broker.busy == 2)
    assert set(rows.rows) == {"00000001", "00000002"}
    broker.gate.set()
    await until(lambda: not rows.rows)

    assert sorted(broker.ids) == ["00000001", "00000002"]
    await publishing.drain(5)
    assert broker.closed


async def test_what_an_earlier_life_left_is_published_at_the_start() -> None:
    rows, broker = FakeOutboxStore(*(row(n) for n in range(100))), Broker()
    publishing = outbox(rows, broker)
    publishing.start()

    await until(lambda: not rows.rows)

    assert sorted(broker.ids) == sorted(row(n).id for n in range(100))
    await publishing.drain(5)


async def test_no_more_than_allowed_are_published_at_once_and_rows_leave_in_batches() -> None:
    rows, broker = FakeOutboxStore(), Broker()
    publishing = outbox(rows, broker)
    publishing.start()
    broker.gate.clear()
    rows.commit(*(row(n) for n in range(10)))
    await until(lambda: broker.busy == 4)
    broker.gate.set()
    await until(lambda: not rows.rows)
    await publishing.drain(5)

    assert broker.busiest == 4
    assert max(rows.removals) > 1


async def test_what_memory_has_no_room_for_is_read_back_from_the_store() -> None:
    rows, broker = FakeOutboxStore(), Broker()
    publishing = outbox(rows, broker)
    publishing.start()
    await until(lambda: rows.reads == 1)
    broker.gate.clear()
    for number in range(500):
        rows.commit(row(number))
    await until(lambda: broker.busy == 4)
    reads_while_full = rows.reads
    broker.gate.set()
    await until(lambda: not rows.rows)

    assert reads_while_full <= 2  # a full memory does not keep the store busy
    assert sorted(broker.ids) == [row(n).id for n in range(500)]
    await publishing.drain(5)


async def test_a_flaky_broker_gets_every_event_in_the_end() -> None:
    chance = random.Random(1)
    rows, broker = FakeOutboxStore(), Broker(lambda _: chance.random() < 0.5)
    publishing = outbox(rows, broker)
    publishing.start()
    for number in range(100):
        rows.commit(row(number))

    await until(lambda: not rows.rows)

    assert sorted(broker.ids) == [row(n).id for n in range(100)]
    await publishing.drain(5)


async def test_a_broker_that_was_away_gets_everything_when_it_returns() -> None:
    rows, broker = FakeOutboxStore(), Broker(lambda _: True)
    publishing = outbox(rows, broker)
    publishing.start()
    for number in range(50):
        rows.commit(row(number))
    await until(lambda: broker.tried > 100)
    assert len(rows.rows) == 50

    broker.refuse = lambda _: False
    await until(lambda: not rows.rows)

    assert set(broker.ids) == {row(n).id for n in range(50)}
    await publishing.drain(5)


async def test_an_event_that_the_broker_never_takes_holds_up_no_other_and_is_not_given_up() -> None:
    rows, broker = FakeOutboxStore(), Broker(lambda row: int(row.id) < 5)
    publishing = outbox(rows, broker)
    publishing.start()
    for number in range(60):
        rows.commit(row(number))

    await until(lambda: len(rows.rows) == 5)
    before = broker.tried
    await until(lambda: broker.tried > before + 20)
    broker.refuse = lambda _: False
    await until(lambda: not rows.rows)

    assert sorted(broker.ids) == [row(n).id for n in range(60)]
    await publishing.drain(5)


async def test_a_store_that_fails_for_a_while_loses_nothing() -> None:
    rows, broker = FakeOutboxStore(row(1)), Broker()
    rows.fails = 3
    publishing = outbox(rows, broker)
    publishing.start()
    await until(lambda: not rows.rows)

    rows.fails = 3
    rows.commit(row(2))
    await until(lambda: not rows.rows)

    assert broker.ids == [row(1).id, row(2).id]  # a removal is repeated, not the publication
    await publishing.drain(5)


async def test_a_crash_between_publication_and_removal_repeats_the_event_under_its_id() -> None:
    rows, broker = FakeOutboxStore(), Broker()
    first_life = outbox(rows, broker)
    first_life.start()
    await until(lambda: rows.reads == 1)
    rows.fails = 1_000_000
    rows.commit(row(1))
    await until(lambda: broker.ids == [row(1).id])
    await first_life.drain(1)  # the store is away: the row stays
    rows.fails = 0

    second_life = outbox(rows, broker)
    second_life.start()
    await until(lambda: not rows.rows)

    assert broker.ids == [row(1).id] * 2
    await second_life.drain(5)


async def test_a_sweep_takes_old_rows_of_others_and_leaves_what_is_under_way() -> None:
    rows, broker, clock = FakeOutboxStore(), Broker(), ManualClock()
    publishing = outbox(rows, broker, clock)
    publishing.start()
    await until(lambda: rows.reads == 1)
    broker.gate.clear()
    rows.commit(row(1, START - LONG_AGO))
    rows.rows[row(2).id] = row(2, START - LONG_AGO)  # of a process that died
    rows.rows[row(3).id] = row(3, START)  # of one that is about to publish it

    await publishing.sweep()
    await publishing.sweep()
    broker.gate.set()
    await until(lambda: set(rows.rows) == {row(3).id})

    assert broker.ids == [row(1).id, row(2).id]
    await publishing.drain(5)


async def test_sweeps_of_two_processes_at_once_publish_everything_under_its_own_id() -> None:
    left = [row(n, START - LONG_AGO) for n in range(50)]
    rows, broker, clock = FakeOutboxStore(), Broker(), ManualClock()
    both = [outbox(rows, broker, clock) for _ in range(2)]
    for publishing in both:
        publishing.start()
    await until(lambda: rows.reads == 2)
    rows.rows |= {each.id: each for each in left}

    await asyncio.gather(*(publishing.sweep() for publishing in both for _ in range(2)))
    await until(lambda: not rows.rows)

    assert set(broker.ids) == {each.id for each in left}
    assert len(broker.ids) <= 2 * len(left)  # what both took goes out twice, and is handled once
    for publishing in both:
        await publishing.drain(5)


async def test_draining_publishes_what_is_under_way() -> None:
    rows, broker = FakeOutboxStore(), Broker()
    publishing = outbox(rows, broker)
    publishing.start()
    rows.commit(*(row(n) for n in range(8)))

    await publishing.drain(5)

    assert (len(broker.got), rows.rows) == (8, {})


async def test_draining_does_not_wait_for_a_broker_that_is_away_or_silent() -> None:
    for broker in (Broker(lambda _: True), Broker()):
        rows = FakeOutboxStore()
        publishing = outbox(rows, broker)
        publishing.start()
        if not broker.refuse(row(0)):
            broker.gate.clear()
        rows.commit(*(row(n) for n in range(10)))

        await publishing.drain(0.2)

        assert len(rows.rows) == 10
        assert broker.closed


async def test_an_event_is_published_in_the_context_of_the_work_that_caused_it() -> None:
    seen: list[context.Context] = []

    class Looking(Broker):
        async def publish(self, row: object) -> None:
            seen.append(context.current())

    rows = FakeOutboxStore()
    publishing = outbox(rows, Looking())
    publishing.start()
    rows.commit(row(1), row(2))
    await publishing.drain(5)

    assert {work.correlation_id for work in seen} == {"correlation-1", "correlation-2"}
    assert {work.trace_id for work in seen} == {TRACE[3:35]}
