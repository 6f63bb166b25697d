"""The gRPC door: proto to use case and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from events.catalog import Money
from functions.orders import service
from functions.orders.checkout import Item, Placement
from functions.orders.clients import Catalogue
from functions.orders.domain import Order, Status
from functions.orders.store import Orders
from functions.orders.velocity import Budgets
from functions.orders.watching import Watchers
from functions.runtime.access import ADMINS, ANYBODY, SIGNED_IN, services
from functions.runtime.addresses import PostalAddress
from functions.runtime.clock import Clock
from functions.runtime.currencies import ProviderLimits
from functions.runtime.errors import invalid
from functions.runtime.idempotency import fingerprint
from functions.runtime.identity import current_caller
from functions.runtime.messages import money, timestamp
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
"""Who may call; the use cases ask for more."""

_TO_PROTO = {status: pb.OrderStatus.Value(f"ORDER_STATUS_{status}") for status in Status}
_FROM_PROTO: dict[int, Status] = {number: status for status, number in _TO_PROTO.items()}


@dataclass
class OrdersServicer(orders_pb2_grpc.OrdersServiceServicer):
    """shop.orders.v1.OrdersService."""

    orders: Orders
    catalogue: Catalogue
    watchers: Watchers
    clock: Clock
    limits: ProviderLimits
    budgets: Budgets | None = None
    address_header: str = ""

    async def PlaceOrder(self, request: pb.PlaceOrderRequest, context: Any) -> pb.PlaceOrderResponse:
        # What the ingress says of a client that calls directly; the gateway's word is in its request.
        stated = dict(context.invocation_metadata() or ()).get(self.address_header)
        wanted = replace(_placement(request), client_address=str(stated or request.client_address))
        order = await service.place(
            self.orders,
            self.catalogue,
            self.clock,
            current_caller(),
            wanted,
            self.limits,
            budgets=self.budgets,
        )
        return pb.PlaceOrderResponse(order=_order(order))

    async def GetOrder(self, request: pb.GetOrderRequest, context: Any) -> pb.GetOrderResponse:
        return pb.GetOrderResponse(
            order=_order(await service.get(self.orders, current_caller(), request.order_id))
        )

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Any) -> pb.ListOrdersResponse:
        page = await service.list_orders(
            self.orders,
            current_caller(),
            user_id=request.user_id,
            everybody=request.all,
            status=_status(request.status),
            limit=request.limit,
            cursor=request.cursor,
        )
        return pb.ListOrdersResponse(
            orders=[_order(order) for order in page.items], next_cursor=page.next_cursor or ""
        )

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Any) -> pb.CancelOrderResponse:
        return pb.CancelOrderResponse(
            order=_order(
                await service.cancel(
                    self.orders, self.clock, current_caller(), request.order_id, request.reason
                )
            )
        )

    async def ShipOrder(self, request: pb.ShipOrderRequest, context: Any) -> pb.ShipOrderResponse:
        return pb.ShipOrderResponse(
            order=_order(await service.ship(self.orders, self.clock, current_caller(), request.order_id))
        )

    async def DeliverOrder(self, request: pb.DeliverOrderRequest, context: Any) -> pb.DeliverOrderResponse:
        return pb.DeliverOrderResponse(
            order=_order(await service.deliver(self.orders, self.clock, current_caller(), request.order_id))
        )

    async def WatchOrder(
        self, request: pb.WatchOrderRequest, context: Any
    ) -> AsyncIterator[pb.WatchOrderResponse]:
        stream = await service.watch(self.orders, self.watchers, current_caller(), request.order_id)
        async with aclosing(stream):
            async for order in stream:
                yield pb.WatchOrderResponse(order=_order(order))

    async def CreateStreamTicket(
        self, request: pb.CreateStreamTicketRequest, context: Any
    ) -> pb.CreateStreamTicketResponse:
        issued = await service.issue_stream_ticket(
            self.orders, self.clock, current_caller(), request.order_id
        )
        return pb.CreateStreamTicketResponse(ticket=issued.ticket, expires_at=timestamp(issued.expires_at))

    async def RedeemStreamTicket(
        self, request: pb.RedeemStreamTicketRequest, context: Any
    ) -> pb.RedeemStreamTicketResponse:
        token = await service.redeem_stream_ticket(self.orders, self.clock, request.order_id, request.ticket)
        return pb.RedeemStreamTicketResponse(access_token=token)

    async def GetPaymentInstruction(
        self, request: pb.GetPaymentInstructionRequest, context: Any
    ) -> pb.GetPaymentInstructionResponse:
        order = await service.payment_instruction(self.orders, current_caller(), request.order_id)
        return pb.GetPaymentInstructionResponse(
            payment_instruction=pb.PaymentInstruction(
                order_id=order.id,
                user_id=order.user_id,
                amount=money(order.total),
                payment_token=order.payment_token,
                payable=order.payable,
            )
        )


def _placement(request: pb.PlaceOrderRequest) -> Placement:
    address = request.shipping_address
    return Placement(
        items=[Item(line.product_id, line.quantity) for line in request.lines],
        address=PostalAddress(
            name=address.name,
            line1=address.line1,
            line2=address.line2,
            city=address.city,
            state=address.state,
            postal_code=address.postal_code,
            country=address.country,
        )
        if request.HasField("shipping_address")
        else None,
        payment_token=request.payment_token,
        key=request.idempotency_key if request.HasField("idempotency_key") else None,
        fingerprint=_fingerprint(request),
        expected_total=Money(request.expected_total.amount, request.expected_total.currency)
        if request.HasField("expected_total")
        else None,
    )


def _fingerprint(request: pb.PlaceOrderRequest) -> str:
    """Stands for the request without its key; a hash, so that no token or address lies beside the key."""
    keyless = pb.PlaceOrderRequest()
    keyless.CopyFrom(request)
    keyless.ClearField("idempotency_key")
    keyless.ClearField("client_address")  # people move
    return fingerprint(keyless.SerializeToString(deterministic=True))


def _status(number: int) -> Status | None:
    if number == pb.ORDER_STATUS_UNSPECIFIED:
        return None
    if number not in _FROM_PROTO:
        raise invalid("There is no such status.", ("status", "must be one of " + ", ".join(Status)))
    return _FROM_PROTO[number]


def _shipping_address(address: PostalAddress) -> pb.ShippingAddress:
    return pb.ShippingAddress(
        name=address.name,
        line1=address.line1,
        line2=address.line2,
        city=address.city,
        state=address.state,
        postal_code=address.postal_code,
        country=address.country,
    )


def _order(order: Order) -> pb.Order:
    address = order.shipping_address
    return pb.Order(
        id=order.id,
        user_id=order.user_id,
        status=_TO_PROTO[order.status],
        lines=[
            pb.OrderLine(
                product_id=line.product_id,
                quantity=line.quantity,
                unit_price=money(line.unit_price),
                name=line.name,
                sku=line.sku,
            )
            for line in order.lines
        ],
        total=money(order.total),
        shipping_address=_shipping_address(address) if address else None,
        created_at=timestamp(order.created_at),
        updated_at=timestamp(order.updated_at),
        timeline=[
            pb.TimelineEntry(status=_TO_PROTO[entry.status], at=timestamp(entry.at), reason=entry.reason)
            for entry in order.timeline
        ],
        version=order.version,
        cancel_reason=order.cancel_reason,
        refunded=money(order.refunded),
        disputed=order.disputed,
    )
