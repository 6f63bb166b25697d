"""Every test of a use case runs on each store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from functions.products.store import MAPPINGS
from functions.products.tests.shop import Shop
from functions.runtime.clock import ManualClock
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import Store
from functions.runtime.store.sqlite.store import SQLiteStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Store]:
    # A race is always lost once, which finds changes that are not pure.
    made: Store = (
        MemoryStore(MAPPINGS, clock, lost_races=1)
        if request.param == "memory"
        else SQLiteStore(tmp_path / "products.db", MAPPINGS, clock)
    )
    yield made
    await made.close()


@pytest.fixture
def shop(store: Store, clock: ManualClock) -> Shop:
    return Shop(store, clock)
