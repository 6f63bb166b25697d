"""Fixtures of the users tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from functions.runtime.tests.conftest import moto  # noqa: F401 - a fixture
from functions.users.tests.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """An empty users service."""
    world = World()
    yield world
    await world.hasher.close()
