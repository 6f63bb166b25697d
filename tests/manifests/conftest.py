"""Fixtures with the manifests under test."""

from __future__ import annotations

from pathlib import Path

import pytest

from knative.local import manifests as m
from tests.manifests import crds

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def base() -> m.Manifests:
    """Return all manifests of knative/base."""
    return m.load(ROOT / "knative" / "base")


@pytest.fixture(scope="session")
def schemas() -> crds.Schemas:
    """Return the schemas of Knative's CRDs."""
    where = crds.folder()
    if where is None:
        pytest.skip("Knative's CRDs are not here: name their folder in SHOP_CRD_SCHEMAS")
    return crds.load(where)
