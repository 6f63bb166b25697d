"""Identifiers."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from functions.runtime.ids import is_id, new_id, uuid7


def test_an_id_is_a_uuid_of_version_7_that_tells_its_time() -> None:
    before = time.time_ns() // 1_000_000
    made = UUID(uuid7())

    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_ids_differ() -> None:
    assert len({uuid7() for _ in range(10_000)}) == 10_000


def test_ids_made_one_after_the_other_sort_in_that_order_also_within_a_millisecond() -> None:
    made = [uuid7() for _ in range(10_000)]

    assert made == sorted(made)
    assert len({value[:13] for value in made}) < len(made)  # Several share a millisecond.


def test_ids_made_by_several_threads_differ() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: uuid7(), range(10_000)))

    assert len(set(made)) == len(made)


def test_an_id_has_its_prefix_and_nothing_else_passes_for_one() -> None:
    made = new_id("ord")

    assert is_id("ord", made)
    for wrong in ("", "ord_", made.upper(), made + "0", made[:-1], made.replace("ord", "usr"), f"{made}\n"):
        assert not is_id("ord", wrong)


def test_ids_sort_in_the_order_made_also_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = uuid7()
    monkeypatch.setattr("functions.runtime.ids.time.time_ns", lambda: 1_000_000_000)

    assert uuid7() > before
