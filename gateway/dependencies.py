"""The dependencies of endpoints: the caller, the request's context, and the clients of the services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from functions.runtime.identity import Identity, current_caller
from gateway.clients import Clients, DeadLettersClient, ServiceClient
from gateway.middleware.request_context import RequestContext

if TYPE_CHECKING:
    from proto.shop.notifications.v1.notifications_pb2_grpc import NotificationsServiceAsyncStub
    from proto.shop.orders.v1.orders_pb2_grpc import OrdersServiceAsyncStub
    from proto.shop.payments.v1.payments_pb2_grpc import PaymentsServiceAsyncStub
    from proto.shop.products.v1.products_pb2_grpc import ProductsServiceAsyncStub
    from proto.shop.users.v1.users_pb2_grpc import UsersServiceAsyncStub


# Dependencies are coroutines: FastAPI runs plain functions in a thread.
async def _caller() -> Identity:
    return current_caller()


async def _request_context(request: Request) -> RequestContext:
    request_context: RequestContext = request.scope["request_context"]
    return request_context


async def _clients(request: Request) -> Clients:
    return (await _request_context(request)).state.clients


def _client(name: str) -> Any:
    async def client(request: Request) -> Any:
        return getattr(request.scope["request_context"].state.clients, name)

    return Depends(client)


Caller = Annotated[Identity, Depends(_caller)]
"""The signed-in person, or the anonymous identity if nobody is signed in."""
Context = Annotated[RequestContext, Depends(_request_context)]
AllClients = Annotated[Clients, Depends(_clients)]
UsersClient = Annotated[ServiceClient["UsersServiceAsyncStub"], _client("users")]
ProductsClient = Annotated[ServiceClient["ProductsServiceAsyncStub"], _client("products")]
OrdersClient = Annotated[ServiceClient["OrdersServiceAsyncStub"], _client("orders")]
PaymentsClient = Annotated[ServiceClient["PaymentsServiceAsyncStub"], _client("payments")]
NotificationsClient = Annotated[ServiceClient["NotificationsServiceAsyncStub"], _client("notifications")]
DeadLetters = Annotated[DeadLettersClient, _client("dead_letters")]
