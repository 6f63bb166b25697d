"""Marks the tests of a running platform as e2e."""

from pathlib import Path

import pytest

from tests.conftest import MakeProduct

__all__ = ["MakeProduct"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder as e2e."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
