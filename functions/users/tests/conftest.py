"""Fixtures of the users tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from functions.runtime.tests.conftest import moto  # noqa: F401 - a fixture
from functions.users.tests.accounts import Accounts


@pytest.fixture
async def accounts() -> AsyncIterator[Accounts]:
    """An empty users service."""
    accounts = Accounts()
    yield accounts
    await accounts.hasher.close()
