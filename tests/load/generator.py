"""The load: arrivals at a rate that does not depend on the answers, by Locust. It runs in an environment of its own.

`python -m tests.load.generator PLAN RESULT` reads a plan (JSON, made by `tests.load`) and writes what was measured.
Each arrival runs in its own greenlet at its own time. The latency of its first request counts from the time at which
the arrival was intended, so that a generator or a platform that falls behind shows (coordinated omission).
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import gevent
import gevent.event
from gevent.pool import Group
from geventhttpclient import HTTPClient
from locust import User, constant, task
from locust.env import Environment

_REFRESH_AFTER = 600.0
"""Access tokens last 15 minutes."""
_WATCH_SECONDS = 60.0
_WORDS = ("coffee", "tea", "lamp", "chair", "red", "wood", "cup", "bag")


class Shed(Exception):
    """The platform refused the request to protect itself: 429 or 503 with Retry-After."""


class Failed(Exception):
    """The response was an error, or there was none."""


class Client:
    """Sends requests to the platform, and records the latency and the outcome of each."""

    def __init__(self, plan: dict[str, Any], environment: Environment) -> None:
        self._environment = environment
        host = {"Host": plan["host"]} if plan["host"] else {}
        timeout = plan["timeout"]
        self._http = HTTPClient.from_url(
            plan["base_url"],
            concurrency=2_000,
            connection_timeout=timeout,
            network_timeout=timeout,
            headers=host,
        )
        self.people: list[dict[str, Any]] = plan["people"]
        self._signed_in = dict.fromkeys(range(len(self.people)), time.monotonic())
        self.samples: list[tuple[str, float, str]] = []
        self.acknowledged: list[tuple[int, str]] = []

    def send(self, name: str, method: str, path: str, since: float, person: int | None = None, body: Any = None) -> Any:
        """Send a request and return the decoded response. Raises Shed and Failed, which are recorded."""
        with self._recorded(name, since):
            response = self._request(method, path, person, body)
            return json.loads(response.read() or b"null")

    def place(self, person: int, product: str, since: float, token: str = "tok_ok") -> str:  # noqa: S107 - a test token
        """Place an order of one piece and return its id."""
        order = self.send("POST /v1/orders", "POST", "/v1/orders", since, person, order_of(product, token))
        self.acknowledged.append((person, order["id"]))
        return str(order["id"])

    def watch(self, person: int, order_id: str, since: float) -> None:
        """Follow an order by server-sent events until it is paid or cancelled."""
        with self._recorded("order streamed until it is paid", since):
            response = self._request("GET", f"/v1/orders/{order_id}/stream", person)
            text = b""
            ends = time.monotonic() + _WATCH_SECONDS
            while b'"status":"CONFIRMED"' not in text and b'"status":"CANCELLED"' not in text:
                chunk = response.read(1)
                if not chunk or time.monotonic() > ends:
                    raise Failed("the stream ended before the order was decided")
                text += chunk
            response.release()

    def record(self, name: str, since: float, outcome: str, error: str = "") -> None:
        """Record one request that began, or should have begun, at `since` (monotonic)."""
        milliseconds = (time.monotonic() - since) * 1e3
        self.samples.append((name, milliseconds, error or outcome))
        self._environment.events.request.fire(
            request_type=outcome,
            name=name,
            response_time=milliseconds,
            response_length=0,
            exception=Failed(error) if outcome == "error" else None,
            context={},
        )

    def _recorded(self, name: str, since: float) -> _Recorded:
        return _Recorded(self, name, since)

    def _request(self, method: str, path: str, person: int | None = None, body: Any = None) -> Any:
        headers = {"content-type": "application/json"}
        if person is not None:
            headers["authorization"] = f"Bearer {self._token(person)}"
        if method == "POST":
            headers["idempotency-key"] = uuid4().hex
        response = self._http.request(method, path, body=json.dumps(body) if body else b"", headers=headers)
        status = response.status_code
        if status in (429, 503) and response.get("retry-after"):
            response.read()
            raise Shed
        if status >= 400:
            raise Failed(f"{status} {json.loads(response.read() or b'{}').get('reason', '')}".strip())
        return response

    def _token(self, person: int) -> str:
        tokens = self.people[person]
        if time.monotonic() - self._signed_in[person] > _REFRESH_AFTER:
            began, self._signed_in[person] = self._signed_in[person], time.monotonic()
            body = json.dumps({"refresh_token": tokens["refresh_token"]})
            response = self._http.request(
                "POST", "/v1/sessions/refresh", body=body, headers={"content-type": "application/json"}
            )
            answer = json.loads(response.read() or b"{}")
            if response.status_code >= 400:
                self._signed_in[person] = began
                raise Failed(f"{response.status_code} {answer.get('reason', '')} when a token was refreshed")
            tokens.update(answer)
        return str(tokens["access_token"])


class _Recorded:
    def __init__(self, client: Client, name: str, since: float) -> None:
        self._client, self._name, self._since = client, name, since

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self._client.record(self._name, self._since, "ok")
        elif isinstance(error, Shed):
            self._client.record(self._name, self._since, "shed")
        elif isinstance(error, Exception):
            self._client.record(self._name, self._since, "error", str(error) or type(error).__name__)
            if not isinstance(error, Failed):
                raise Failed(str(error)) from error


def order_of(product: str, token: str) -> dict[str, Any]:
    """Return the body of an order of one piece."""
    address = {"name": "Ada Lovelace", "line1": "12 St James's Square", "line2": "", "city": "London"}
    return {
        "lines": [{"product_id": product, "quantity": 1}],
        "shipping_address": {**address, "postal_code": "SW1Y 4JH", "country": "GB"},
        "payment_token": token,
    }


Scenario = Callable[[Client, dict[str, Any], int, float], None]
"""Serves arrival number `int`, which was intended at the monotonic time `float`."""


def shoppers(client: Client, plan: dict[str, Any], number: int, since: float) -> None:
    """Look at the catalogue and a product; one in four orders it, and one in ten of these is declined."""
    client.send("GET /v1/products", "GET", "/v1/products?limit=20", since)
    product = random.choice(plan["products"])
    client.send("GET /v1/products/{id}", "GET", f"/v1/products/{product}", time.monotonic())
    if number % 4 == 0:
        token = "tok_declined" if number % 40 == 0 else "tok_ok"
        person = number // 4 % len(client.people)
        order = client.place(person, product, time.monotonic(), token)
        client.send("GET /v1/orders/{id}", "GET", f"/v1/orders/{order}", time.monotonic(), person)


def flash_sale(client: Client, plan: dict[str, Any], number: int, since: float) -> None:
    """Order the one product of which there are too few."""
    client.place(number % len(client.people), plan["scarce"], since)


def crawl(client: Client, plan: dict[str, Any], number: int, since: float) -> None:
    """Read pages, products and searches without an account."""
    kind = number % 4
    if kind == 0:
        page = client.send("GET /v1/products", "GET", "/v1/products?limit=50", since)
        if page["next_cursor"]:
            path = f"/v1/products?limit=50&cursor={page['next_cursor']}"
            client.send("GET /v1/products, next page", "GET", path, time.monotonic())
    elif kind == 1:
        client.send("GET /v1/products?q=", "GET", f"/v1/products?q={random.choice(_WORDS)}", since)
    else:
        product = random.choice(plan["products"])
        client.send("GET /v1/products/{id}", "GET", f"/v1/products/{product}", since)


def watchers(client: Client, plan: dict[str, Any], number: int, since: float) -> None:
    """Place an order and follow it until it is decided."""
    person = number % len(client.people)
    placed = time.monotonic()
    order = client.place(person, random.choice(plan["products"]), since)
    client.watch(person, order, placed)


def from_zero(client: Client, plan: dict[str, Any], number: int, since: float) -> None:
    """Come now and then: look at the catalogue, order, and wait until the order is paid."""
    client.send("GET /v1/products", "GET", "/v1/products?limit=20", since)
    person, ordered = number % len(client.people), time.monotonic()
    order = client.place(person, random.choice(plan["products"]), ordered)
    with client._recorded("order placed until it is paid", ordered):
        ends = time.monotonic() + _WATCH_SECONDS
        while time.monotonic() < ends:
            seen = json.loads(client._request("GET", f"/v1/orders/{order}", person).read())
            if seen["status"] in ("CONFIRMED", "CANCELLED"):
                return
            gevent.sleep(0.2)
        raise Failed("the order was not paid in time")


class Grpc:
    """Calls of the services themselves, or through the ingress for gRPC."""

    def __init__(self, plan: dict[str, Any]) -> None:
        import grpc
        from grpc.experimental import gevent as grpc_gevent

        grpc_gevent.init_gevent()
        self._grpc = grpc
        options = [("grpc.default_authority", plan["grpc_host"])] if plan["grpc_host"] else []

        def channel(service: str) -> Any:
            return grpc.insecure_channel(plan["grpc"][service], options=options)

        from proto.shop.orders.v1.orders_pb2_grpc import OrdersServiceStub
        from proto.shop.products.v1.products_pb2_grpc import ProductsServiceStub

        self._products, self._orders = (
            ProductsServiceStub(channel("products")),
            OrdersServiceStub(channel("orders")),
        )
        self._seconds = plan["timeout"]

    def __call__(self, client: Client, plan: dict[str, Any], number: int, since: float) -> None:
        """Read a product; one in four orders it."""
        from proto.shop.orders.v1 import orders_pb2
        from proto.shop.products.v1 import products_pb2

        product = random.choice(plan["products"])
        self._call(client, self._products.GetProduct, products_pb2.GetProductRequest(product_id=product), since)
        if number % 4:
            return
        person, body = number // 4 % len(client.people), order_of(product, "tok_ok")
        request = orders_pb2.PlaceOrderRequest(
            lines=[orders_pb2.LineRequest(**line) for line in body["lines"]],
            shipping_address=orders_pb2.ShippingAddress(**body["shipping_address"]),
            payment_token=body["payment_token"],
            idempotency_key=uuid4().hex,
        )
        metadata = [("authorization", f"Bearer {client._token(person)}")]
        placed = self._call(client, self._orders.PlaceOrder, request, time.monotonic(), metadata)
        client.acknowledged.append((person, placed.order.id))

    def _call(self, client: Client, method: Any, request: Any, since: float, metadata: Any = None) -> Any:
        name = method._method.decode().rpartition(".")[2]
        with client._recorded(name, since):
            try:
                return method(request, timeout=self._seconds, metadata=metadata)
            except self._grpc.RpcError as error:
                if error.code() is self._grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise Shed from None
                raise Failed(f"{error.code().name} {error.details()}") from None


SCENARIOS: dict[str, Callable[[dict[str, Any]], Scenario]] = {
    "shoppers": lambda _: shoppers,
    "flash-sale": lambda _: flash_sale,
    "crawl": lambda _: crawl,
    "grpc": Grpc,
    "watchers": lambda _: watchers,
    "from-zero": lambda _: from_zero,
}


def intended(rate: float, seconds: float) -> Iterator[float]:
    """Yield the times of arrivals from 0 on: a Poisson process, the same in each run."""
    draw, at = random.Random(1), 0.0
    while (at := at + draw.expovariate(rate)) < seconds:
        yield at


def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Make the load that the plan describes, and return what was measured."""
    environment = Environment()
    client = Client(plan, environment)
    scenario = SCENARIOS[plan["scenario"]](plan)
    late: list[float] = []
    done = gevent.event.Event()
    began = time.time()

    def serve(number: int, since: float) -> None:
        late.append((time.monotonic() - since) * 1e3)
        try:
            scenario(client, plan, number, since)
        except (Shed, Failed):
            return

    class Arrivals(User):  # type: ignore[misc] # locust is not installed where types are checked
        """All arrivals: one Locust user that waits for nobody."""

        wait_time = constant(0)
        fixed_count = 1

        @task  # type: ignore[untyped-decorator] # see above
        def arrive(self) -> None:
            """Start each arrival at its time, and end when all were served."""
            if done.is_set():
                gevent.sleep(1)
                return
            arrivals, start = Group(), time.monotonic()
            for number, at in zip(itertools.count(), intended(plan["rate"], plan["seconds"])):
                if (wait := start + at - time.monotonic()) > 0:
                    gevent.sleep(wait)
                arrivals.spawn(serve, number, start + at)
            arrivals.join(timeout=plan["timeout"] * 4)
            done.set()

    environment.user_classes = [Arrivals]
    runner = environment.create_local_runner()
    if plan["web"]:
        environment.create_web_ui(*plan["web"])
    runner.start(1, spawn_rate=1)
    done.wait()
    runner.quit()
    if environment.web_ui:
        environment.web_ui.stop()
    seconds = time.time() - began
    return {
        "samples": client.samples,
        "acknowledged": client.acknowledged,
        "late_ms": sorted(late),
        "seconds": seconds,
    }


if __name__ == "__main__":
    measured = run(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(measured))
