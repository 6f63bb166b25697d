"""Fixtures of the orders tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from functions.orders.tests.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A shop without orders."""
    world = World()
    yield world
    await world.watchers.close()
