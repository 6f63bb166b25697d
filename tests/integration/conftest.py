"""A platform in this process for each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from observability import tracing
from tests.integration.recorded import Recorded
from tests.integration.together import Actor, Together, administrator, register


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is marked integration."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture
async def together(tmp_path: Path) -> AsyncIterator[Together]:
    platform = Together(tmp_path)
    await platform.start()
    yield platform
    await platform.stop()


@pytest.fixture
async def customer(together: Together) -> Actor:
    return await register(together)


@pytest.fixture
async def admin(together: Together) -> Actor:
    return await administrator(together)


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """The spans of this process."""
    recorded = Recorded()
    tracing.install(recorded.provider)
    yield recorded
    tracing.install(None)
    recorded.provider.shutdown()
