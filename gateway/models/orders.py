"""Requests and responses about orders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from functions.runtime import formats
from gateway.models.common import Body, Int, Moment, Money, NextCursor, Reason, Version, identifier, view
from gateway.models.users import AddressIn
from proto.shop.money.v1 import money_pb2
from proto.shop.orders.v1 import orders_pb2 as pb

OrderStatus = TypeAliasType(
    "OrderStatus",
    Annotated[
        Literal["PLACED", "RESERVED", "CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED"],
        Field(description="Status of the order."),
    ],
)
FINAL = (pb.ORDER_STATUS_DELIVERED, pb.ORDER_STATUS_CANCELLED)


class LineIn(Body):
    """One line of a new order."""

    product_id: Annotated[str, Field(pattern=r"^prd_[0-9a-f]{32}$"), identifier("prd", "Which product")]
    quantity: Annotated[Int, Field(ge=1, le=formats.MAX_QUANTITY, description="How many.", examples=[2])]


class ExpectedTotal(Body):
    """The total that the customer was shown."""

    amount: Annotated[
        Int, Field(ge=0, le=formats.MAX_TOTAL, description="Minor units, such as cents.", examples=[3998])
    ]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code.", examples=["EUR"])]


class PlaceOrder(Body):
    """A new order at the catalogue's current prices."""

    lines: Annotated[list[LineIn], Field(min_length=1, max_length=formats.MAX_LINES, description="Each product once.")]
    shipping_address: AddressIn
    payment_token: Annotated[
        str,
        Field(
            pattern=formats.PAYMENT_TOKEN,
            description="From the payment provider; never a card number.",
            examples=["tok_ok"],
        ),
    ]
    expected_total: Annotated[
        ExpectedTotal | None,
        Field(
            description="The total that the customer was shown. If it has changed, nothing is placed, and the response "
            "is 409 PRICE_CHANGED with `expected_total` and `total`."
        ),
    ] = None


class CancelOrder(Body):
    """The cancellation of an order."""

    reason: Reason | None = None


class ShippingAddress(TypedDict):
    """The shipping address; all its fields are empty once the person's account is deleted."""

    name: Annotated[str, Field(examples=["Ada Lovelace"])]
    line1: Annotated[str, Field(examples=["Hauptstr. 1"])]
    line2: Annotated[str, Field(examples=["2nd floor"])]
    city: Annotated[str, Field(examples=["Berlin"])]
    state: Annotated[str, Field(description="Administrative area; may be empty.", examples=[""])]
    postal_code: Annotated[str, Field(examples=["10115"])]
    country: Annotated[str, Field(examples=["DE"])]


class Line(TypedDict):
    """One line of an order, as it was when the order was placed."""

    product_id: Annotated[str, identifier("prd", "Which product")]
    quantity: Annotated[int, Field(ge=1, le=formats.MAX_QUANTITY, description="How many.", examples=[2])]
    unit_price: Money
    name: Annotated[str, Field(description="The product's name when the order was placed.", examples=["Mug"])]
    sku: Annotated[str, Field(description="The product's SKU.", examples=["MUG-01"])]


class TimelineEntry(TypedDict):
    """One step in the history of an order."""

    status: OrderStatus
    at: Moment
    reason: Annotated[str, Field(description="The reason in UPPER_SNAKE; may be empty.", examples=["OUT_OF_STOCK"])]


class Order(TypedDict):
    """An order."""

    id: Annotated[str, identifier("ord", "The order")]
    user_id: Annotated[str, identifier("usr", "The customer")]
    status: OrderStatus
    lines: list[Line]
    total: Money
    shipping_address: ShippingAddress
    refunded: Money
    disputed: Annotated[
        bool,
        Field(
            description="Whether the payer's bank disputes the payment. A disputed order cannot be shipped.",
            examples=[False],
        ),
    ]
    cancel_reason: Annotated[str, Field(description="Empty unless cancelled.", examples=[""])]
    created_at: Moment
    updated_at: Moment
    timeline: Annotated[list[TimelineEntry], Field(description="Oldest first.")]
    version: Version


class OrderPage(TypedDict):
    """Orders, newest first."""

    items: list[Order]
    next_cursor: NextCursor


def status_filter(status: str | None) -> pb.OrderStatus.ValueType:
    """Return the status by which to filter a list."""
    return pb.OrderStatus.Value(f"ORDER_STATUS_{status or 'UNSPECIFIED'}")


def expected_total(given: ExpectedTotal | None) -> money_pb2.Money | None:
    """Return the expected total as a protobuf message; None if it is absent."""
    return None if given is None else money_pb2.Money(amount=given.amount, currency=given.currency)


def order(message: pb.Order) -> Order:
    """Return an order as the API shows it."""
    refunded: Money = {"amount": message.refunded.amount, "currency": message.total.currency}
    return view(Order, message, refunded=refunded)


def order_page(message: pb.ListOrdersResponse) -> OrderPage:
    """Return a page of orders as the API shows it."""
    return {"items": [order(entry) for entry in message.orders], "next_cursor": message.next_cursor or None}


class StreamTicket(TypedDict):
    """A single-use ticket for the event stream of an order."""

    ticket: Annotated[str, Field(description="A secret, like an access token.", examples=["tkt_" + "A" * 64])]
    url: Annotated[
        str,
        Field(
            description="The URL to open, on this host.",
            examples=[f"/v1/orders/ord_0190b5a4c1de7c0f8a31d94e5b7c2f60/stream?ticket=tkt_{'A' * 64}"],
        ),
    ]
    expires_at: Moment


def stream_ticket(order_id: str, message: pb.CreateStreamTicketResponse) -> StreamTicket:
    """Return a ticket as the API shows it."""
    return view(StreamTicket, message, url=f"/v1/orders/{order_id}/stream?ticket={message.ticket}")
