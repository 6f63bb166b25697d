"""The gRPC service of orders. It converts proto messages to commands, and entities to proto messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from events.catalog import Money
from functions.orders.domain import Order, Status
from functions.orders.pricing import RequestedLine
from functions.orders.service import CancelOrder, ListOrders, OrdersService, PlaceOrder
from functions.runtime.addresses import PostalAddress
from functions.runtime.errors import invalid
from functions.runtime.idempotency import fingerprint
from functions.runtime.identity import ADMINS, ANYBODY, SIGNED_IN, current_caller, services
from functions.runtime.messages import money, optional, timestamp, to_message
from proto.shop.orders.v1 import orders_pb2 as pb
from proto.shop.orders.v1 import orders_pb2_grpc

ACCESS = {
    "PlaceOrder": SIGNED_IN,
    "GetOrder": SIGNED_IN,
    "ListOrders": SIGNED_IN,
    "CancelOrder": SIGNED_IN,
    "ShipOrder": ADMINS,
    "DeliverOrder": ADMINS,
    "WatchOrder": SIGNED_IN,
    "CreateStreamTicket": SIGNED_IN,
    "RedeemStreamTicket": ANYBODY,
    "GetPaymentInstruction": services("payments"),
}
"""Who may call each RPC; the use cases check ownership and state."""

_TO_PROTO = {status: pb.OrderStatus.Value(f"ORDER_STATUS_{status}") for status in Status}
_FROM_PROTO: dict[int, Status] = {number: status for status, number in _TO_PROTO.items()}


class OrdersServicer(orders_pb2_grpc.OrdersServiceServicer):
    """shop.orders.v1.OrdersService.

    `client_address_header` is the name of the header that the ingress sets to the address of a client that calls
    directly; it is empty if there is none. The gateway instead sends its client's address in the request.
    """

    def __init__(self, service: OrdersService, client_address_header: str = "") -> None:
        self.service = service
        self._client_address_header = client_address_header

    async def PlaceOrder(self, request: pb.PlaceOrderRequest, context: Any) -> pb.PlaceOrderResponse:
        header = dict(context.invocation_metadata() or ()).get(self._client_address_header)
        command = _place_order(request, str(header or request.client_address))
        return pb.PlaceOrderResponse(order=_order(await self.service.place(command, current_caller())))

    async def GetOrder(self, request: pb.GetOrderRequest, context: Any) -> pb.GetOrderResponse:
        order = await self.service.get(request.order_id, current_caller())
        return pb.GetOrderResponse(order=_order(order))

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Any) -> pb.ListOrdersResponse:
        query = ListOrders(request.user_id, request.all, _status(request.status), request.limit, request.cursor)
        page = await self.service.list_orders(query, current_caller())
        return pb.ListOrdersResponse(orders=[_order(order) for order in page.items], next_cursor=page.next_cursor or "")

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Any) -> pb.CancelOrderResponse:
        command = CancelOrder(request.order_id, request.reason)
        return pb.CancelOrderResponse(order=_order(await self.service.cancel(command, current_caller())))

    async def ShipOrder(self, request: pb.ShipOrderRequest, context: Any) -> pb.ShipOrderResponse:
        order = await self.service.ship(request.order_id, current_caller())
        return pb.ShipOrderResponse(order=_order(order))

    async def DeliverOrder(self, request: pb.DeliverOrderRequest, context: Any) -> pb.DeliverOrderResponse:
        order = await self.service.deliver(request.order_id, current_caller())
        return pb.DeliverOrderResponse(order=_order(order))

    async def WatchOrder(self, request: pb.WatchOrderRequest, context: Any) -> AsyncIterator[pb.WatchOrderResponse]:
        stream = await self.service.watch(request.order_id, current_caller())
        async with aclosing(stream):
            async for order in stream:
                yield pb.WatchOrderResponse(order=_order(order))

    async def CreateStreamTicket(
        self, request: pb.CreateStreamTicketRequest, context: Any
    ) -> pb.CreateStreamTicketResponse:
        issued = await self.service.create_stream_ticket(request.order_id, current_caller())
        return pb.CreateStreamTicketResponse(ticket=issued.ticket, expires_at=timestamp(issued.expires_at))

    async def RedeemStreamTicket(
        self, request: pb.RedeemStreamTicketRequest, context: Any
    ) -> pb.RedeemStreamTicketResponse:
        token = await self.service.redeem_stream_ticket(request.order_id, request.ticket)
        return pb.RedeemStreamTicketResponse(access_token=token)

    async def GetPaymentInstruction(
        self, request: pb.GetPaymentInstructionRequest, context: Any
    ) -> pb.GetPaymentInstructionResponse:
        order = await self.service.get_payment_instruction(request.order_id, current_caller())
        return pb.GetPaymentInstructionResponse(
            payment_instruction=pb.PaymentInstruction(
                order_id=order.id,
                user_id=order.user_id,
                amount=money(order.total),
                payment_token=order.payment_token,
                payable=order.payable,
            )
        )


def _place_order(request: pb.PlaceOrderRequest, client_address: str) -> PlaceOrder:
    return PlaceOrder(
        lines=[RequestedLine(line.product_id, line.quantity) for line in request.lines],
        shipping_address=optional(request, "shipping_address", PostalAddress),
        payment_token=request.payment_token,
        idempotency_key=optional(request, "idempotency_key"),
        fingerprint=_fingerprint(request),
        expected_total=optional(request, "expected_total", Money),
        client_address=client_address,
    )


def _fingerprint(request: pb.PlaceOrderRequest) -> str:
    """Return a digest of the request without its key, so that no token or address is stored with the key."""
    keyless = pb.PlaceOrderRequest()
    keyless.CopyFrom(request)
    keyless.ClearField("idempotency_key")
    keyless.ClearField("client_address")  # it may change between two attempts
    return fingerprint(keyless.SerializeToString(deterministic=True))


def _status(number: int) -> Status | None:
    if number == pb.ORDER_STATUS_UNSPECIFIED:
        return None
    if number not in _FROM_PROTO:
        raise invalid("There is no such status.", ("status", "must be one of " + ", ".join(Status)))
    return _FROM_PROTO[number]


def _order(order: Order) -> pb.Order:
    return to_message(pb.Order, order)
