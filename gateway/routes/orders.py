"""Orders: placing, following, moving on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from functions.runtime.errors import invalid
from functions.runtime.identity import current_caller, require_signed_in
from gateway.middleware.request_context import clients_of, request_context_of
from gateway.models import orders as models
from gateway.order_stream import OrderStream
from gateway.responses import answer, conditional, etag
from gateway.route_options import declare
from gateway.routes.params import Cursor, Limit, OrderId, idempotency_key, routes
from gateway.routing import enter_token
from proto.shop.orders.v1 import orders_pb2 as pb

router = routes("orders")

Status = Annotated[models.OrderStatus | None, Query(description="Only orders that stand here.")]
Ticket = Annotated[
    str | None,
    Query(pattern=r"^tkt_[A-Za-z0-9_=-]{64}$", description="In place of an access token; it works once."),
]
LastEventId = Annotated[
    str,
    Query(pattern=r"^[0-9]{0,18}$", description="The last `id` that was received, where no header says so."),
]
_EVENTS = 'event: order\nid: 2\ndata: {"id":"ord_0190b5a4c1de7c0f8a31d94e5b7c2f60","status":"RESERVED"}\n\n'
_UNKNOWN = {404: "ORDER_NOT_FOUND"}
_ILLEGAL = {**_UNKNOWN, 409: "ILLEGAL_TRANSITION"}
_UNSHIPPABLE = {**_UNKNOWN, 409: "ILLEGAL_TRANSITION, ORDER_DISPUTED, ORDER_REFUNDED"}


@router.get(
    "/v1/orders/{order_id}", **declare("signed-in", 200, models.Order, tagged="read", problems=_UNKNOWN)
)
async def read_order(request: Request, order_id: OrderId) -> Response:
    """Read an order with its timeline."""
    orders = clients_of(request).orders
    found = (await orders.read(orders.stub.GetOrder, pb.GetOrderRequest(order_id=order_id))).order
    return conditional(request, models.order(found))


@router.post(
    "/v1/orders",
    **declare(
        "signed-in",
        201,
        models.Order,
        headers=("idempotency-key",),
        tagged="sent",
        located=True,
        problems={
            400: "INVALID_ARGUMENT, MALFORMED_JSON, PRODUCT_UNKNOWN, CURRENCY_MIXED, TOTAL_TOO_LARGE, "
            "TOTAL_NOT_CHARGEABLE",
            409: "PRODUCT_INACTIVE, PRICE_CHANGED, IDEMPOTENCY_KEY_IN_FLIGHT",
            422: "IDEMPOTENCY_KEY_REUSED",
            429: "TOO_MANY_ORDERS, TOO_MANY_UNPAID_ORDERS, TOO_MANY_DECLINES",
        },
    ),
)
async def place_order(request: Request, body: models.PlaceOrder) -> Response:
    """Place an order.

    Lines are priced from the catalogue at this moment; with `expected_total`, only where that is the sum. Stock and
    payment are decided right afterwards: read or stream the order to see how it goes.
    """
    orders = clients_of(request).orders
    wanted = pb.PlaceOrderRequest(
        lines=[pb.LineRequest(product_id=line.product_id, quantity=line.quantity) for line in body.lines],
        shipping_address=models.shipping_address(body.shipping_address),
        payment_token=body.payment_token,
        idempotency_key=idempotency_key(request),
        expected_total=models.expected_total(body.expected_total),
        client_address=request_context_of(request).address,
    )
    order = models.order((await orders.write(orders.stub.PlaceOrder, wanted)).order)
    return answer(order, 201, location=f"/v1/orders/{order['id']}", tag=etag(order["version"]))


@router.get("/v1/orders", **declare("signed-in", 200, models.OrderPage))
async def list_orders(
    request: Request, status: Status = None, limit: Limit = 20, cursor: Cursor = ""
) -> Response:
    """List one's own orders, newest first."""
    wanted = pb.ListOrdersRequest(status=models.status_filter(status), limit=limit, cursor=cursor)
    return answer(await order_page(request, wanted))


async def order_page(request: Request, wanted: pb.ListOrdersRequest) -> models.OrderPage:
    """A page of orders as the API shows it."""
    orders = clients_of(request).orders
    found = await orders.read(orders.stub.ListOrders, wanted)
    return {
        "items": [models.order(order) for order in found.orders],
        "next_cursor": found.next_cursor or None,
    }


@router.post("/v1/orders/{order_id}/cancel", **declare("signed-in", 202, models.Order, problems=_ILLEGAL))
async def cancel_order(
    request: Request, order_id: OrderId, body: models.CancelOrder | None = None
) -> Response:
    """Cancel an order that has not been shipped.

    Stock and money go back; that takes a moment, hence 202.
    """
    orders = clients_of(request).orders
    wanted = pb.CancelOrderRequest(order_id=order_id, reason=(body and body.reason) or "")
    return answer(models.order((await orders.write(orders.stub.CancelOrder, wanted)).order), 202)


@router.post("/v1/orders/{order_id}/ship", **declare("admin", 200, models.Order, problems=_UNSHIPPABLE))
async def ship_order(request: Request, order_id: OrderId) -> Response:
    """Mark a confirmed order as shipped."""
    orders = clients_of(request).orders
    wanted = pb.ShipOrderRequest(order_id=order_id)
    return answer(models.order((await orders.write(orders.stub.ShipOrder, wanted)).order))


@router.post("/v1/orders/{order_id}/deliver", **declare("admin", 200, models.Order, problems=_ILLEGAL))
async def deliver_order(request: Request, order_id: OrderId) -> Response:
    """Mark a shipped order as delivered."""
    orders = clients_of(request).orders
    wanted = pb.DeliverOrderRequest(order_id=order_id)
    return answer(models.order((await orders.write(orders.stub.DeliverOrder, wanted)).order))


@router.post(
    "/v1/orders/{order_id}/stream-tickets",
    **declare("signed-in", 201, models.StreamTicket, problems=_UNKNOWN),
)
async def create_stream_ticket(request: Request, order_id: OrderId) -> Response:
    """Get a ticket for following an order.

    For clients that cannot send an Authorization header, such as a browser's EventSource. It works once, for half a
    minute, and only for this order; a stream that it opened lasts as long as one that your access token opened.
    """
    orders = clients_of(request).orders
    issued = await orders.write(
        orders.stub.CreateStreamTicket, pb.CreateStreamTicketRequest(order_id=order_id)
    )
    return answer(models.stream_ticket(order_id, issued), 201)


@router.get(
    "/v1/orders/{order_id}/stream",
    **declare(
        "anyone",
        200,
        headers=("last-event-id",),
        streamed=_EVENTS,
        sends=("X-Accel-Buffering",),
        problems={
            **_UNKNOWN,
            401: "TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED, STREAM_TICKET_INVALID",
            429: "TOO_MANY_WATCHERS, RATE_LIMITED",
            503: "TOO_MANY_STREAMS, SERVICE_UNAVAILABLE",
        },
    ),
)
async def stream_order(
    request: Request, order_id: OrderId, ticket: Ticket = None, last_event_id: LastEventId = ""
) -> Response:
    """Follow an order by server-sent events.

    Send an access token, or a `ticket` of `POST /v1/orders/{order_id}/stream-tickets`. The order is sent at once and
    after every change, as `event: order` with the version as `id` and the order as `data`. The stream ends at DELIVERED
    or CANCELLED; a client that comes back after that gets 204, which tells an EventSource to stop. A client that opens
    a new stream by a new ticket says in `last_event_id` what it has, since it cannot set the header.
    """
    if ticket is not None:
        await _redeem(request, order_id, ticket)
    require_signed_in(current_caller())
    return await OrderStream.open(request, order_id, request.headers.get("last-event-id", last_event_id))


async def _redeem(request: Request, order_id: str, ticket: str) -> None:
    """Make the person who asked for the ticket the caller. Raises ServiceError."""
    if current_caller().subject:
        raise invalid("One proof is enough.", ("ticket", "must not come with an access token"))
    orders = clients_of(request).orders
    wanted = pb.RedeemStreamTicketRequest(order_id=order_id, ticket=ticket)
    found = await orders.write(orders.stub.RedeemStreamTicket, wanted)
    await enter_token(request_context_of(request), found.access_token)
