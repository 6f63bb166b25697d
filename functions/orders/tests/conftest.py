"""Fixtures of the orders tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from functions.orders.tests.shop import Shop


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """Return a shop without orders."""
    shop = Shop()
    yield shop
    await shop.watchers.close()
