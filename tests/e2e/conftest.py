"""What drives a running platform is marked e2e."""

from pathlib import Path

import pytest

from tests.conftest import MakeProduct

__all__ = ["MakeProduct"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is marked e2e."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
