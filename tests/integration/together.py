"""All five functions and the broker in one event loop, composed from the same manifests as `make up`.

Time is a ManualClock, and collaborators can be replaced by keyword, as the bootstraps take them:
`Together(folder, payments={"provider": ...})`.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from events.catalog import Payload, SweepDue
from events.http_server import serving
from events.service_tokens import DEAD_LETTERS, dead_letter_callers
from functions.runtime import identity
from functions.runtime.clock import ManualClock, SystemClock
from functions.runtime.grpc_client import GrpcClient
from functions.runtime.ids import uuid7
from functions.runtime.process import ServiceRunner
from functions.runtime.settings import load
from functions.runtime.tests.support import posted
from functions.runtime.tokens import ServiceTokens
from knative.local import manifests, parts, ports
from knative.local.broker.app import BrokerApp
from knative.local.broker.config import load as load_broker
from knative.setup.secrets import Folder, fill_keys
from proto.shop.money.v1 import money_pb2
from proto.shop.orders.v1 import orders_pb2, orders_pb2_grpc
from proto.shop.payments.v1 import payments_pb2, payments_pb2_grpc
from proto.shop.products.v1 import products_pb2, products_pb2_grpc
from proto.shop.users.v1 import users_pb2, users_pb2_grpc
from tests.e2e.platform import NO_VELOCITY
from tests.signing import local_key

BASE = Path(__file__).parents[2] / "knative" / "base"
ADMIN = {"ADMIN_EMAIL": "admin@shop.test", "ADMIN_PASSWORD": "integration-administrator"}
ADDRESS = orders_pb2.ShippingAddress(
    name="Ada Lovelace", line1="12 St James's Square", city="London", postal_code="SW1Y 4JH", country="GB"
)


class Together:
    """The platform without its gateway. `runner` has each function's servers, `peers` a gRPC peer for each."""

    def __init__(self, folder: Path, **replaced: dict[str, Any]) -> None:
        self.clock = ManualClock()
        self.runner: dict[str, ServiceRunner] = {}
        self.peers: dict[str, GrpcClient] = {}
        self._folder = folder
        self._replaced = replaced
        self._manifests = manifests.load(BASE)
        self._ports = ports.free(parts.domains(self._manifests))
        fill_keys(Folder(folder / "secrets"), parts.callers(self._manifests))
        self._platform = parts.derive(self._manifests, self._ports, folder, {})
        self._broker = AsyncExitStack()

    async def start(self) -> None:
        """Start every server."""
        await self.start_broker()
        for name in parts.domains(self._manifests):
            await self.start_function(name)

    def broker_config(self) -> str:
        """Brokers and Triggers, as the manifests have them."""
        return self._platform.broker_config

    @property
    def broker_url(self) -> str:
        """Where the broker and its dead-letter sink are."""
        return f"http://127.0.0.1:{self._ports.http['broker']}"

    async def settled(self) -> None:
        """Wait until no delivery is pending."""

        async def pending() -> float:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{self.broker_url}/metrics") as answer,
            ):
                lines = (await answer.text()).splitlines()
            return sum(float(line.split()[-1]) for line in lines if line.startswith("shop_broker_pending{"))

        await comes_to(pending, 0.0)

    async def start_broker(self) -> None:
        """The local broker on this platform's port, with its triggers and what it kept."""
        keys = {"SERVICE_KEYS_FILE": str(self._folder / "secrets" / "service-keys" / "jwks.json")}
        callers = dead_letter_callers(keys, time.time)
        app = BrokerApp(load_broker(self.broker_config()), self._folder / "broker", callers=callers)
        await self._broker.enter_async_context(serving(app, port=self._ports.http["broker"]))

    async def stop_broker(self) -> None:
        """Take it away."""
        await self._broker.aclose()

    async def start_function(self, name: str) -> None:
        """One function with both its servers."""
        environ = {**next(part.env for part in self._platform.parts if part.name == name), **ADMIN}
        environ |= {"DRAIN_SECONDS": "2", **NO_VELOCITY}
        settings = importlib.import_module(f"functions.{name}.settings").Settings
        bootstrap = importlib.import_module(f"functions.{name}.bootstrap").bootstrap
        function = bootstrap(load(settings, environ), clock=self.clock, **self._replaced.get(name, {}))
        self.runner[name] = ServiceRunner(function)
        await self.runner[name].start()
        self.peers[name] = GrpcClient(self.runner[name].grpc_address)

    async def stop_function(self, name: str) -> None:
        """Stop its servers, as SIGTERM would."""
        await self.peers.pop(name).close()
        await self.runner.pop(name).stop()

    async def stop(self) -> None:
        """Close everything."""
        for name in list(self.runner):
            await self.stop_function(name)
        await self.stop_broker()

    async def sweep(self) -> None:
        """What the PingSource does, now."""
        headers = {
            "ce-specversion": "1.0",
            "ce-id": uuid7(),
            "ce-type": SweepDue.TYPE,
            "ce-source": SweepDue.SOURCE,
        }
        url = f"{self.broker_url}/shop/default"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=b"{}", headers=headers) as answer,
        ):
            assert answer.status == 202

    @property
    def dead_letters_token(self) -> dict[str, str]:
        """The header that the gateway shows the dead-letter sink."""
        tokens = ServiceTokens(local_key(self._folder, "gateway"), "https://shop.local", SystemClock())
        return {"authorization": f"Bearer {tokens.token(DEAD_LETTERS)}"}

    async def hear(self, name: str, event: Payload, event_id: str = "", signed_by: str = "") -> int:
        """An event straight to a function, as a broker would deliver it, signed by its source; the status."""
        key = local_key(self._folder, signed_by or event.SOURCE[1:])
        headers, data = posted(event, event_id or uuid7(), key)
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.runner[name].http_url, data=data, headers=headers) as answer,
        ):
            return answer.status


class Actor:
    """Somebody with a token, who calls the services by gRPC."""

    def __init__(self, together: Together, session: users_pb2.Session) -> None:
        self._together = together
        self.user_id = session.user_id
        self.token = session.access_token
        self._identity = identity.Identity(session.user_id, frozenset(), session.access_token)

    async def call(self, domain: str, method: str, request: Any) -> Any:
        """One RPC on this person's behalf."""
        modules = {
            "orders": orders_pb2_grpc.OrdersServiceStub,
            "payments": payments_pb2_grpc.PaymentsServiceStub,
            "products": products_pb2_grpc.ProductsServiceStub,
            "users": users_pb2_grpc.UsersServiceStub,
        }
        peer = self._together.peers[domain]
        identity.enter(self._identity)
        stub: Any = modules[domain](peer.channel)
        return await peer.call(getattr(stub, method), request, timeout=10)

    async def place(self, product_id: str, quantity: int = 1, token: str = "tok_ok") -> orders_pb2.Order:  # noqa: S107 - a test token
        """Order some of a product."""
        line = orders_pb2.LineRequest(product_id=product_id, quantity=quantity)
        request = orders_pb2.PlaceOrderRequest(lines=[line], shipping_address=ADDRESS, payment_token=token)
        order: orders_pb2.Order = (await self.call("orders", "PlaceOrder", request)).order
        return order

    async def order(self, order_id: str) -> orders_pb2.Order:
        """An order as it is now."""
        found: orders_pb2.Order = (
            await self.call("orders", "GetOrder", orders_pb2.GetOrderRequest(order_id=order_id))
        ).order
        return found

    async def payment(self, order_id: str) -> payments_pb2.Payment:
        """Its payment."""
        request = payments_pb2.GetOrderPaymentRequest(order_id=order_id)
        found: payments_pb2.Payment = (await self.call("payments", "GetOrderPayment", request)).payment
        return found

    async def stock(self, product_id: str) -> tuple[int, int]:
        """on_hand and reserved."""
        stock = (await self.call("products", "GetStock", products_pb2.GetStockRequest(product_id=product_id))).stock
        return stock.on_hand, stock.reserved

    async def product(self, on_hand: int) -> str:
        """A new product in stock (admins only); its id."""
        request = products_pb2.CreateProductRequest(
            sku=f"SKU-{uuid7()}",
            name="Teapot",
            category="kitchen",
            price=money_pb2.Money(amount=1250, currency="EUR"),
        )
        product = (await self.call("products", "CreateProduct", request)).product
        await self.call("products", "SetStock", products_pb2.SetStockRequest(product_id=product.id, on_hand=on_hand))
        return str(product.id)


async def sign_in(together: Together, email: str, password: str) -> Actor:
    """An existing account."""
    peer = together.peers["users"]
    login = users_pb2.LoginRequest(email=email, password=password)
    session = (await peer.call(users_pb2_grpc.UsersServiceStub(peer.channel).Login, login, anonymous=True)).session
    return Actor(together, session)


async def register(together: Together, email: str = "ada@example.com") -> Actor:
    """A new customer."""
    peer, password = together.peers["users"], "analytical-engine"
    request = users_pb2.RegisterRequest(email=email, password=password, name="Ada")
    await peer.call(users_pb2_grpc.UsersServiceStub(peer.channel).Register, request, anonymous=True)
    return await sign_in(together, email, password)


async def administrator(together: Together) -> Actor:
    """The first administrator."""
    return await sign_in(together, ADMIN["ADMIN_EMAIL"], ADMIN["ADMIN_PASSWORD"])


async def comes_to(read: Callable[[], Awaitable[Any]], wanted: Any, seconds: float = 20.0) -> None:
    """Wait until what is read is what is wanted."""
    deadline = time.monotonic() + seconds
    while (seen := await read()) != wanted:
        assert time.monotonic() < deadline, f"wanted {wanted}, still {seen}"
        await asyncio.sleep(0.02)
