"""People with something to lose on the running platform, and those who would take it."""

import asyncio

import pytest

from tests.e2e.platform import Platform
from tests.security.callers import Callers, prepare


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is marked security."""
    for item in items:
        if "tests/security" in item.path.as_posix():
            item.add_marker(pytest.mark.security)


@pytest.fixture(scope="session")
def callers(platform: Platform) -> Callers:
    return asyncio.run(prepare(platform))
