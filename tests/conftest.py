"""One platform for all tests that drive one; a shop client, a customer and the administrator for each."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from knative.local.demo.shop import Person, Shop
from tests.e2e.platform import LocalPlatform, Platform, given

MakeProduct = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    there = given()
    if there is not None:
        yield there
        return
    local = LocalPlatform(tmp_path_factory.mktemp("platform") / "data")
    local.start()
    yield local
    assert local.stop() == 0, local.output()


@pytest.fixture
def local(platform: Platform) -> LocalPlatform:
    if not isinstance(platform, LocalPlatform):
        pytest.skip("needs a platform of its own, to look into its processes: unset E2E_BASE_URL")
    return platform


@pytest.fixture
async def shop(platform: Platform) -> AsyncIterator[Shop]:
    async with Shop(platform.base_url, platform.host) as shop:
        yield shop


@pytest.fixture
async def customer(shop: Shop) -> Person:
    return await shop.register()


@pytest.fixture
async def admin(shop: Shop, platform: Platform) -> Person:
    return await shop.login(platform.admin_email, platform.admin_password)


@pytest.fixture
def make_product(shop: Shop, admin: Person) -> MakeProduct:
    async def make(on_hand: int = 10, **changed: Any) -> dict[str, Any]:
        body = {
            "sku": f"E2E-{uuid4().hex[:12]}",
            "name": "Test teapot",
            "description": "Pours.",
            "category": "kitchen",
            "price": {"amount": 1250, "currency": "EUR"},
            "image_urls": ["https://images.example.com/teapot.jpg"],
            "active": True,
            **changed,
        }
        product: dict[str, Any] = await shop.call("POST", "/v1/products", who=admin, json=body)
        await shop.call("PUT", f"/v1/products/{product['id']}/stock", who=admin, json={"on_hand": on_hand})
        return product

    return make
