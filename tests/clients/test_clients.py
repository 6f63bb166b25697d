"""Clients that strangers generate from the served document compile, and live a customer's story."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from knative.local.demo.shop import Shop
from tests.clients import toolchains
from tests.conftest import MakeProduct
from tests.e2e.platform import Platform

CLIENTS: list[Callable[[Path, Path], list[str | Path]]] = [
    toolchains.java,
    toolchains.go,
    toolchains.typescript,
    toolchains.python,
]


@pytest.fixture(scope="session")
def document(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OpenAPI document as it is served."""
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    request = urllib.request.Request(f"{platform.base_url}/openapi.json")  # noqa: S310 - our own platform
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        path.write_bytes(answer.read())
    return path


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
async def test_a_generated_client_compiles_and_lives_the_story(
    client: Callable[[Path, Path], list[str | Path]],
    document: Path,
    platform: Platform,
    shop: Shop,
    make_product: MakeProduct,
    tmp_path: Path,
) -> None:
    await make_product()
    story = client(document, tmp_path)
    email = f"{uuid4().hex}@example.com"
    said = toolchains.run(*story, platform.base_url, email, "a password of the story", folder=tmp_path)
    assert said.splitlines()[-1] == "CONFIRMED"
