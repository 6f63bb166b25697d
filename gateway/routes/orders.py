"""Routes of orders: place, read, list, cancel, ship, deliver and stream."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query, Response

from functions.runtime.errors import invalid
from functions.runtime.identity import Identity, require_signed_in
from gateway import api_errors as errors
from gateway.authentication import enter_token
from gateway.dependencies import Caller, Context, OrdersClient
from gateway.models import orders as models
from gateway.order_stream import OrderStream
from gateway.routes.parameters import Cursor, IdempotencyKey, Limit, OrderId
from gateway.routing import Access, ApiRouter
from proto.shop.orders.v1 import orders_pb2 as pb

router = ApiRouter("orders")

Status = Annotated[models.OrderStatus | None, Query(description="Only orders in this status.")]
Ticket = Annotated[
    str | None, Query(pattern=r"^tkt_[A-Za-z0-9_=-]{64}$", description="Single-use ticket instead of an access token.")
]
LastEventIdHeader = Annotated[
    str | None, Header(alias="Last-Event-ID", description="Sent by an EventSource when it reconnects.", examples=["3"])
]
LastEventId = Annotated[
    str, Query(pattern=r"^[0-9]{0,18}$", description="The last received `id`, if Last-Event-ID cannot be sent.")
]


@router.get("/v1/orders/{order_id}", access=Access.SIGNED_IN, etag=True, errors=[errors.ORDER_NOT_FOUND])
async def read_order(order_id: OrderId, orders: OrdersClient) -> models.Order:
    """Read an order with its timeline."""
    query = pb.GetOrderRequest(order_id=order_id)
    return models.order((await orders.read(orders.stub.GetOrder, query)).order)


@router.post(
    "/v1/orders",
    access=Access.SIGNED_IN,
    status_code=201,
    etag=True,
    location="/v1/orders/{id}",
    errors=[
        errors.PRODUCT_UNKNOWN,
        errors.CURRENCY_MIXED,
        errors.TOTAL_TOO_LARGE,
        errors.TOTAL_NOT_CHARGEABLE,
        errors.PRODUCT_INACTIVE,
        errors.PRICE_CHANGED,
        errors.IDEMPOTENCY_KEY_IN_FLIGHT,
        errors.IDEMPOTENCY_KEY_REUSED,
        errors.TOO_MANY_ORDERS,
        errors.TOO_MANY_UNPAID_ORDERS,
        errors.TOO_MANY_UNPAID_PIECES,
        errors.TOO_MANY_DECLINES,
    ],
)
async def place_order(
    body: models.PlaceOrder, context: Context, orders: OrdersClient, idempotency_key: IdempotencyKey = None
) -> models.Order:
    """Place an order at the catalogue's current prices.

    If `expected_total` is given and differs from the total, nothing is placed (409 PRICE_CHANGED). Stock is reserved
    and the payment is charged after the response. Read or stream the order to learn the outcome.
    """
    command = pb.PlaceOrderRequest(
        lines=[pb.LineRequest(product_id=line.product_id, quantity=line.quantity) for line in body.lines],
        shipping_address=pb.ShippingAddress(**body.shipping_address.model_dump()),
        payment_token=body.payment_token,
        idempotency_key=idempotency_key,
        expected_total=models.expected_total(body.expected_total),
        client_address=context.address,
    )
    return models.order((await orders.write(orders.stub.PlaceOrder, command)).order)


@router.get("/v1/orders", access=Access.SIGNED_IN)
async def list_orders(
    orders: OrdersClient, status: Status = None, limit: Limit = 20, cursor: Cursor = ""
) -> models.OrderPage:
    """List the caller's orders, newest first."""
    query = pb.ListOrdersRequest(status=models.status_filter(status), limit=limit, cursor=cursor)
    return models.order_page(await orders.read(orders.stub.ListOrders, query))


@router.post(
    "/v1/orders/{order_id}/cancel",
    access=Access.SIGNED_IN,
    status_code=202,
    errors=[errors.ORDER_NOT_FOUND, errors.ILLEGAL_TRANSITION],
)
async def cancel_order(order_id: OrderId, orders: OrdersClient, body: models.CancelOrder | None = None) -> models.Order:
    """Cancel an order that has not been shipped.

    The response is 202, because the stock is released and the payment is refunded after it.
    """
    command = pb.CancelOrderRequest(order_id=order_id, reason=(body and body.reason) or "")
    return models.order((await orders.write(orders.stub.CancelOrder, command)).order)


@router.post(
    "/v1/orders/{order_id}/ship",
    access=Access.ADMIN,
    errors=[errors.ORDER_NOT_FOUND, errors.ILLEGAL_TRANSITION, errors.ORDER_DISPUTED, errors.ORDER_REFUNDED],
)
async def ship_order(order_id: OrderId, orders: OrdersClient) -> models.Order:
    """Mark a confirmed order as shipped."""
    command = pb.ShipOrderRequest(order_id=order_id)
    return models.order((await orders.write(orders.stub.ShipOrder, command)).order)


@router.post(
    "/v1/orders/{order_id}/deliver", access=Access.ADMIN, errors=[errors.ORDER_NOT_FOUND, errors.ILLEGAL_TRANSITION]
)
async def deliver_order(order_id: OrderId, orders: OrdersClient) -> models.Order:
    """Mark a shipped order as delivered."""
    command = pb.DeliverOrderRequest(order_id=order_id)
    return models.order((await orders.write(orders.stub.DeliverOrder, command)).order)


@router.post(
    "/v1/orders/{order_id}/stream-tickets", access=Access.SIGNED_IN, status_code=201, errors=[errors.ORDER_NOT_FOUND]
)
async def create_stream_ticket(order_id: OrderId, orders: OrdersClient) -> models.StreamTicket:
    """Create a ticket that opens the event stream of an order.

    It is for clients that cannot send an Authorization header, such as a browser's EventSource. It is valid for 30
    seconds, for one use, and for this order only. The stream ends when the access token with which the ticket was
    created expires or is revoked.
    """
    command = pb.CreateStreamTicketRequest(order_id=order_id)
    return models.stream_ticket(order_id, await orders.write(orders.stub.CreateStreamTicket, command))


@router.get(
    "/v1/orders/{order_id}/stream",
    access=Access.OPTIONAL,
    response_model=str,
    event_example='event: order\nid: 2\ndata: {"id":"ord_0190b5a4c1de7c0f8a31d94e5b7c2f60","status":"RESERVED"}\n\n',
    response_headers=["X-Accel-Buffering"],
    errors=[errors.STREAM_TICKET_INVALID, errors.ORDER_NOT_FOUND, errors.TOO_MANY_WATCHERS, errors.TOO_MANY_STREAMS],
)
async def stream_order(
    order_id: OrderId,
    context: Context,
    caller: Caller,
    orders: OrdersClient,
    *,
    ticket: Ticket = None,
    last_event_id: LastEventId = "",
    last_event_id_header: LastEventIdHeader = None,
) -> Response:
    """Stream an order as server-sent events.

    Send an access token, or a `ticket` from `POST /v1/orders/{order_id}/stream-tickets`. The order is sent at once and
    after every change: `event: order`, the version as `id`, the order as `data`. The stream ends at DELIVERED or
    CANCELLED. A client that reconnects after that gets 204, which tells an EventSource to stop. A client that cannot
    set Last-Event-ID sends the last received `id` as `last_event_id`.
    """
    if ticket is not None:
        if caller.subject:
            raise invalid("Send a ticket or an access token.", ("ticket", "must not come with an access token"))
        caller = await _redeem(context, orders, order_id, ticket)
    require_signed_in(caller)
    seen = last_event_id if last_event_id_header is None else last_event_id_header
    return await OrderStream.open(context, caller, order_id, seen)


async def _redeem(context: Context, orders: OrdersClient, order_id: str, ticket: str) -> Identity:
    """Redeem a stream ticket and authenticate as the person who requested it. Raises ServiceError."""
    command = pb.RedeemStreamTicketRequest(order_id=order_id, ticket=ticket)
    redeemed = await orders.write(orders.stub.RedeemStreamTicket, command)
    return await enter_token(context, redeemed.access_token)
