"""The table of edges has teeth: whichever hop from the gateway to the last event loses the trace, it is missed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from events import publisher
from events.outbox import Outbox, OutboxRow
from functions.runtime.event_function import EventFunction
from functions.runtime.grpc_client import GrpcClient
from functions.runtime.rpc.interceptor import Interceptor
from functions.runtime.settings import load
from gateway.app import create_app
from gateway.clients import ServiceClient
from gateway.middleware.request_context import RequestContextMiddleware
from gateway.settings import Settings
from knative.local.broker import dispatcher
from observability import context, tracing
from tests.edges import CONFIRMED, PLACED, Edge, lines
from tests.integration.recorded import Recorded, operations
from tests.integration.together import Actor, Together, comes_to

CUSTOMER = tracing.SpanTemplate("the customer", "CLIENT")
ADDRESS = {
    "name": "Ada",
    "line1": "12 St James's Square",
    "city": "London",
    "postal_code": "SW1Y 4JH",
    "country": "GB",
}

Break = Callable[[pytest.MonkeyPatch], None]


def hop(module: Any, name: str) -> Callable[[Callable[..., Any]], Break]:
    """A break in propagation: `module.name` replaced by what is decorated, which gets the original first."""

    def decorate(broken: Callable[..., Any]) -> Break:
        return lambda patch: patch.setattr(module, name, partial(broken, getattr(module, name)))

    return decorate


def method(cls: type, name: str) -> Callable[[Callable[..., Any]], Break]:
    """The same of a method."""

    def decorate(broken: Callable[..., Any]) -> Break:
        original = getattr(cls, name)
        return lambda patch: patch.setattr(cls, name, lambda *a, **k: broken(original, *a, **k))

    return decorate


def lost() -> context.Context:
    """The context of the work, had nobody passed the trace on."""
    return context.incoming(context.current().correlation_id, None)


@method(RequestContextMiddleware, "_enter")
def gateway(original: Any, *given: Any) -> None:
    original(*given)
    context.enter(lost())


@method(ServiceClient, "_call")
async def gateway_client(original: Any, *given: Any, **named: Any) -> Any:
    with context.use(lost()):
        return await original(*given, **named)


@method(GrpcClient, "metadata")
def rpc_client(original: Any, *given: Any, **named: Any) -> Any:
    return [(key, value) for key, value in original(*given, **named) if key != "traceparent"]


@method(Interceptor, "begin")
def rpc_server(original: Any, interceptor: Interceptor, call: Any) -> Any:
    authorization = original(interceptor, call)
    context.enter(lost())
    return authorization


@method(Outbox, "_publish")
def outbox_row(original: Any, outbox: Outbox, row: OutboxRow) -> Any:
    return original(outbox, row._replace(traceparent=""))


@hop(publisher, "headers")
def published_event(original: Any, row: OutboxRow, signer: Any) -> Any:
    return original(row._replace(traceparent=""), signer)


@hop(dispatcher, "delivery_span")
def broker(original: Any, trigger: str, event: Mapping[str, str], retries: int) -> Any:
    return original(trigger, {**event, "traceparent": ""}, retries)


@hop(dispatcher, "trace_headers")
def delivery(_: Any, *__: Any) -> bytes:
    return b""


@method(EventFunction, "_deliver")
def subscriber(original: Any, function: EventFunction, event: Any) -> Any:
    context.enter(context.incoming(None, None))
    return original(function, event)


HOPS: dict[str, Break] = {
    "gateway": gateway,
    "gateway's client": gateway_client,
    "gRPC client": rpc_client,
    "gRPC server": rpc_server,
    "outbox row": outbox_row,
    "published event": published_event,
    "broker": broker,
    "delivery": delivery,
    "subscriber": subscriber,
}


@pytest.fixture
async def api(together: Together, customer: Actor) -> AsyncIterator[httpx.AsyncClient]:
    """The customer's client of a gateway before this platform."""
    addresses = {f"{name.upper()}_ADDRESS": runner.grpc_address for name, runner in together.runner.items()}
    app = create_app(load(Settings, addresses), clock=together.clock)
    authorization = {"authorization": f"Bearer {customer.token}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test", headers=authorization) as client:
        yield client
    await app.state.gateway.clients.close()


async def place(api: httpx.AsyncClient, product: str) -> None:
    """Order one piece within a trace of the customer's own."""
    body = {
        "lines": [{"product_id": product, "quantity": 1}],
        "shipping_address": ADDRESS,
        "payment_token": "tok_ok",
    }
    with context.use(context.incoming(None, None)), CUSTOMER.span():
        sent = {"traceparent": context.current().traceparent, "idempotency-key": uuid4().hex}
        answer = await api.post("/v1/orders", json=body, headers=sent)
    assert answer.status_code == 201, answer.text


async def test_the_edges_of_a_trace_are_missed_as_soon_as_any_one_hop_does_not_pass_it_on(
    recorded: Recorded,
    together: Together,
    api: httpx.AsyncClient,
    admin: Actor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    product = await admin.product(50)
    # Here e-mails stay in the store.
    inside = [line for line in lines(PLACED, CONFIRMED) if "GetContacts" not in line and "send " not in line]
    wanted = {operations(line) for line in inside} | {(CUSTOMER.name, "POST /v1/orders")}

    async def missing() -> set[Edge]:
        recorded.exporter.clear()
        await place(api, product)

        async def unseen() -> set[str]:
            return {name for both in wanted for name in both} - recorded.names()

        await comes_to(unseen, set())
        return wanted - recorded.edges()

    found = {"nothing": await missing()}
    for name, break_ in HOPS.items():
        with monkeypatch.context() as patch:
            break_(patch)
            found[name] = await missing()
    assert not found.pop("nothing")
    assert [name for name, edges in found.items() if not edges] == []
