"""Fakes of the services behind the gateway: a real gRPC server with servicers that answer from memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from functions.runtime.app import RpcService
from functions.runtime.errors import ServiceError
from functions.runtime.identity import ANYBODY, Identity, current_caller
from proto.shop.money.v1 import money_pb2
from proto.shop.notifications.v1 import notifications_pb2, notifications_pb2_grpc
from proto.shop.orders.v1 import orders_pb2, orders_pb2_grpc
from proto.shop.payments.v1 import payments_pb2, payments_pb2_grpc
from proto.shop.products.v1 import products_pb2, products_pb2_grpc
from proto.shop.users.v1 import users_pb2, users_pb2_grpc

HEX = "0190b5a4c1de7c0f8a31d94e5b7c2f60"
USER, ADMIN = f"usr_{HEX}", f"usr_{HEX[::-1]}"
PRODUCT, ORDER, PAYMENT = f"prd_{HEX}", f"ord_{HEX}", f"pay_{HEX}"
NOTIFICATION, ADDRESS, REFUND = f"ntf_{HEX}", f"adr_{HEX}", f"ref_{HEX}"
JWKS = '{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
FINAL = orders_pb2.ORDER_STATUS_CONFIRMED


@dataclass
class Backend:
    """The responses that the fakes send, and the calls that they received."""

    fails: dict[str, ServiceError | Exception] = field(default_factory=dict)
    """The error that an RPC raises, by name of the RPC."""
    answers: dict[str, Any] = field(default_factory=dict)
    """The message to send instead of the canned one, or a function from the request to it, by name of the RPC."""
    slow: dict[str, float] = field(default_factory=dict)
    """The delay of the response in seconds, by name of the RPC."""
    calls: list[tuple[str, Any, Identity]] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the first call."""
    updates: asyncio.Queue[orders_pb2.Order] = field(default_factory=asyncio.Queue)
    """The messages that WatchOrder sends after the first one."""
    watch_ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, name: str, request: Any, call: Any) -> Any:
        """Record the call, then fail or answer as configured."""
        self.calls.append((name, request, current_caller()))
        self.called.set()
        self.metadata.append(dict(call.invocation_metadata()))
        if name in self.slow:
            await asyncio.sleep(self.slow[name])
        if name in self.fails:
            raise self.fails[name]
        answer = self.answers.get(name) or canned(name)
        return wrapped(name, answer(request) if callable(answer) else answer)

    def last(self, name: str) -> Any:
        """Return the last request of an RPC."""
        return next(request for called, request, _ in reversed(self.calls) if called == name)

    def services(self) -> list[RpcService]:
        """Return the services of all five domains, for one server."""
        table = [
            (
                users_pb2_grpc.add_UsersServiceServicer_to_server,
                users_pb2_grpc.UsersServiceServicer,
                "shop.users.v1.UsersService",
            ),
            (
                products_pb2_grpc.add_ProductsServiceServicer_to_server,
                products_pb2_grpc.ProductsServiceServicer,
                "shop.products.v1.ProductsService",
            ),
            (
                orders_pb2_grpc.add_OrdersServiceServicer_to_server,
                orders_pb2_grpc.OrdersServiceServicer,
                "shop.orders.v1.OrdersService",
            ),
            (
                payments_pb2_grpc.add_PaymentsServiceServicer_to_server,
                payments_pb2_grpc.PaymentsServiceServicer,
                "shop.payments.v1.PaymentsService",
            ),
            (
                notifications_pb2_grpc.add_NotificationsServiceServicer_to_server,
                notifications_pb2_grpc.NotificationsServiceServicer,
                "shop.notifications.v1.NotificationsService",
            ),
        ]
        return [self._service(add, base, name) for add, base, name in table]

    def _service(self, add: Any, base: type, name: str) -> RpcService:
        rpcs = [rpc for rpc in dir(base) if rpc[0].isupper()]
        servicer = type(base.__name__, (base,), {rpc: self._method(rpc) for rpc in rpcs})()
        return RpcService(add, servicer, name, dict.fromkeys(rpcs, ANYBODY))

    def _method(self, name: str) -> Any:
        async def unary(_: Any, request: Any, call: Any) -> Any:
            return await self.answer(name, request, call)

        async def watch(_: Any, request: Any, call: Any) -> AsyncIterator[Any]:
            try:
                yield await self.answer(name, request, call)
                while True:
                    yield wrapped(name, await self.updates.get())
            finally:
                self.watch_ended.set()

        return watch if name == "WatchOrder" else unary


def wrapped(name: str, message: Any) -> Any:
    """Return the response of an RPC: `message` itself, or a response that has it as its first field."""
    response = getattr(sys.modules[type(message).__module__], f"{name}Response")
    return message if isinstance(message, response) else response(**{response.DESCRIPTOR.fields[0].name: message})


def euros(amount: int) -> money_pb2.Money:
    """Return an amount in euros, given in cents."""
    return money_pb2.Money(amount=amount, currency="EUR")


def stamped(message: Any, *fields: str) -> Any:
    """Set the time fields of `message`, and return it."""
    for name in fields or ("created_at", "updated_at"):
        getattr(message, name).FromJsonString("2030-01-01T12:00:00.000001Z")
    return message


def user(**changes: Any) -> Any:
    """Return an account."""
    values = {"id": USER, "email": "ada@example.com", "name": "Ada", "roles": ["customer"], "version": 1}
    return stamped(users_pb2.User(**{**values, **changes}))


def product(**changes: Any) -> Any:
    """Return a product."""
    values = {
        "id": PRODUCT,
        "sku": "MUG-01",
        "name": "Mug",
        "category": "kitchen",
        "price": euros(1999),
        "active": True,
        "version": 3,
        "image_urls": ["https://img.example.com/mug.jpg"],
    }
    return stamped(products_pb2.Product(**{**values, **changes}))


def order(
    status: orders_pb2.OrderStatus.ValueType = orders_pb2.ORDER_STATUS_PLACED, version: int = 1
) -> orders_pb2.Order:
    """Return an order."""
    line = orders_pb2.OrderLine(product_id=PRODUCT, quantity=2, unit_price=euros(1999), name="Mug", sku="MUG-01")
    address = orders_pb2.ShippingAddress(
        name="Ada", line1="Hauptstr. 1", city="Berlin", postal_code="10115", country="DE"
    )
    entry = stamped(orders_pb2.TimelineEntry(status=orders_pb2.ORDER_STATUS_PLACED), "at")
    message = orders_pb2.Order(
        id=ORDER,
        user_id=USER,
        status=status,
        lines=[line],
        total=euros(3998),
        shipping_address=address,
        timeline=[entry],
        version=version,
    )
    stamped(message)
    return message


def _canned() -> dict[str, Any]:
    stock = products_pb2.Stock(product_id=PRODUCT, on_hand=50, reserved=3, available=47, version=7)
    address = users_pb2.Address(
        id=ADDRESS, name="Ada", line1="Hauptstr. 1", city="Berlin", postal_code="10115", country="DE"
    )
    payment = stamped(
        payments_pb2.Payment(
            id=PAYMENT,
            order_id=ORDER,
            user_id=USER,
            status=payments_pb2.PAYMENT_STATUS_CAPTURED,
            amount=euros(3998),
            captured=euros(3998),
            version=2,
        )
    )
    refund = stamped(
        payments_pb2.Refund(
            id=REFUND,
            payment_id=PAYMENT,
            amount=euros(100),
            status=payments_pb2.REFUND_STATUS_SUCCEEDED,
            reason="REQUESTED_BY_MERCHANT",
        ),
        "created_at",
    )
    message = stamped(
        notifications_pb2.Notification(
            id=NOTIFICATION,
            user_id=USER,
            channel="mailbox",
            template="order_confirmed",
            subject="Confirmed",
            body="Thank you.",
            status=notifications_pb2.NOTIFICATION_STATUS_SENT,
            order_id=ORDER,
        ),
        "created_at",
        "sent_at",
    )
    adjustment = stamped(
        products_pb2.StockAdjustment(
            id="adj_" + "1" * 32,
            product_id=PRODUCT,
            kind=products_pb2.STOCK_ADJUSTMENT_KIND_ADJUSTMENT,
            delta=5,
            on_hand=55,
            reason="Delivery 17",
            adjusted_by=USER,
        ),
        "created_at",
    )
    entry = stamped(
        payments_pb2.LedgerEntry(key="k", kind="charge", payment_id=PAYMENT, amount=euros(3998), outcome="succeeded"),
        "at",
    )
    session = users_pb2.Session(access_token="a.b.c", refresh_token="rt_1", expires_in=900, user_id=USER)
    preferences = notifications_pb2.Preferences(user_id=USER, email_enabled=True, version=0)
    return {
        **dict.fromkeys(("Register", "GetUser", "UpdateUser", "SetRoles"), user()),
        "Login": users_pb2.Session(
            access_token="a.b.c", refresh_token="rt_1", expires_in=900, user_id=USER, device_token="dt_1"
        ),
        "Refresh": session,
        **dict.fromkeys(("AddAddress", "UpdateAddress"), address),
        **dict.fromkeys(("GetJwks", "RotateKeys"), users_pb2.Jwks(json=JWKS)),
        **dict.fromkeys(("GetProduct", "CreateProduct", "UpdateProduct"), product()),
        **dict.fromkeys(("GetStock", "SetStock"), stock),
        **dict.fromkeys(("GetOrder", "PlaceOrder", "WatchOrder"), order()),
        **dict.fromkeys(("CancelOrder",), order(orders_pb2.ORDER_STATUS_CANCELLED, 2)),
        **dict.fromkeys(("ShipOrder",), order(orders_pb2.ORDER_STATUS_SHIPPED, 4)),
        **dict.fromkeys(("DeliverOrder",), order(orders_pb2.ORDER_STATUS_DELIVERED, 5)),
        **dict.fromkeys(("GetPreferences", "UpdatePreferences"), preferences),
        "CreateStreamTicket": stamped(orders_pb2.CreateStreamTicketResponse(ticket=f"tkt_{'A' * 64}"), "expires_at"),
        "RedeemStreamTicket": orders_pb2.RedeemStreamTicketResponse(access_token=f"user:{USER}"),
        "Logout": users_pb2.LogoutResponse(),
        "ChangePassword": users_pb2.ChangePasswordResponse(),
        "DeleteUser": users_pb2.DeleteUserResponse(),
        "RequestPasswordReset": users_pb2.RequestPasswordResetResponse(),
        "ResetPassword": users_pb2.ResetPasswordResponse(),
        "RequestEmailVerification": users_pb2.RequestEmailVerificationResponse(),
        "VerifyEmail": users_pb2.VerifyEmailResponse(),
        "DeleteAddress": users_pb2.DeleteAddressResponse(),
        "DeleteProduct": products_pb2.DeleteProductResponse(),
        "ListUsers": users_pb2.ListUsersResponse(users=[user()], next_cursor="next"),
        "ConfirmEmailChange": users_pb2.ConfirmEmailChangeResponse(),
        "UndoEmailChange": users_pb2.UndoEmailChangeResponse(),
        "ExportUser": users_pb2.ExportUserResponse(user=user(), addresses=[address]),
        "ListAddresses": users_pb2.ListAddressesResponse(addresses=[address]),
        "ListProducts": products_pb2.ListProductsResponse(products=[product()], next_cursor="next"),
        "ListCategories": products_pb2.ListCategoriesResponse(
            categories=[products_pb2.Category(name="kitchen", products=7)]
        ),
        "AdjustStock": adjustment,
        "ListStockAdjustments": products_pb2.ListStockAdjustmentsResponse(adjustments=[adjustment], next_cursor="next"),
        "ListOrders": orders_pb2.ListOrdersResponse(orders=[order()]),
        "GetOrderPayment": payment,
        "ListPayments": payments_pb2.ListPaymentsResponse(payments=[payment]),
        "RefundPayment": refund,
        "ListRefunds": payments_pb2.ListRefundsResponse(refunds=[refund]),
        "ReceiveWebhook": payments_pb2.ReceiveWebhookResponse(),
        "ReceiveMailEvent": notifications_pb2.ReceiveMailEventResponse(),
        "ListLedger": payments_pb2.ListLedgerResponse(entries=[entry]),
        "ListNotifications": notifications_pb2.ListNotificationsResponse(notifications=[message]),
        "GetNotification": message,
    }


_CANNED = _canned()


def canned(name: str) -> Any:
    """Return the response of a healthy service to an RPC."""
    return _CANNED[name]
