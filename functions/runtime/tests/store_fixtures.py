"""The adapters that the contract suite runs over: one line each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from functions.runtime.clock import Clock, ManualClock
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import Store
from functions.runtime.store.sqlite import SQLiteStore
from functions.runtime.tests.store_kinds import KINDS

ADAPTERS: dict[str, Callable[[Path, Clock], Store]] = {
    "memory": lambda _, clock: MemoryStore(KINDS, clock),
    "memory-racing": lambda _, clock: MemoryStore(KINDS, clock, lost_races=1),
    "sqlite": lambda path, clock: SQLiteStore(path / "store.db", KINDS, clock),
}


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture(params=list(ADAPTERS))
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    """An empty store of each adapter in turn."""
    made = ADAPTERS[request.param](tmp_path, clock)
    yield made
    await made.close()
