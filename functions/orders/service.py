"""The use cases of orders."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from events.catalog import (
    Money,
    Payload,
    PaymentCaptured,
    PaymentDeclined,
    PaymentDisputeClosed,
    PaymentDisputed,
    PaymentRefunded,
    PaymentRefundFailed,
    StockRejected,
    StockReserved,
    UserDeleted,
)
from functions.orders.clients import Catalogue
from functions.orders.domain import PLATFORM_REASONS, TIMED_OUT, Order, OrderLine, Receipt, Status
from functions.orders.metrics import REFUSED
from functions.orders.pricing import RequestedLine, price_lines
from functions.orders.store import OrderRepository
from functions.orders.stream_tickets import IssuedTicket, StreamTickets
from functions.orders.velocity import Origin
from functions.orders.watchers import Watchers
from functions.runtime.addresses import PostalAddress, normalise
from functions.runtime.clock import Clock
from functions.runtime.currencies import CURRENCIES, ProviderLimits
from functions.runtime.errors import Code, ServiceError, invalid, not_found
from functions.runtime.formats import MAX_LINES, MAX_QUANTITY, MAX_TOTAL, PAYMENT_TOKEN, REASON
from functions.runtime.idempotency import idempotency_record, wrong_key
from functions.runtime.identity import Identity, require_admin, require_person, require_service
from functions.runtime.ids import is_id, new_id
from functions.runtime.inbox import InboxRecord
from functions.runtime.paging import all_pages, page_limit
from functions.runtime.store.port import Page
from functions.runtime.sweeps import gather_logged

log = logging.getLogger("shop.orders")

CUSTOMER_REQUEST = "CUSTOMER_REQUEST"
_REASON = re.compile(REASON)
_TOKEN = re.compile(PAYMENT_TOKEN)
_CARD_NUMBER = re.compile(r"(?:\d[ .:_-]*){12,19}")
_BATCH = 100
_SWEEP_PAGES = 20
"""A sweep cancels at most 2,000 orders; the next sweep continues with the rest."""


@dataclass(frozen=True)
class PlaceOrder:
    """The order that the caller requests.

    `fingerprint` identifies the request without its idempotency key: a repeated key with another fingerprint is
    refused. `expected_total` is the total that the client showed to the customer, or None. `client_address` is the
    network address of the client, or empty if it is unknown.
    """

    lines: Sequence[RequestedLine]
    shipping_address: PostalAddress | None = field(repr=False)
    payment_token: str = field(repr=False)
    idempotency_key: str | None = None
    fingerprint: str = ""
    expected_total: Money | None = None
    client_address: str = field(default="", repr=False)

    def validated(self) -> PlaceOrder:
        """Return the command with the address normalised for storage.

        Raises:
            InvalidArgument: lists every invalid field by its path in the JSON body.
        """
        address, violations = self.shipping_address, [("shipping_address", "is required")]
        if address is not None:
            address, violations = normalise(address, "shipping_address")
        found = [
            *_wrong_lines(self.lines),
            *violations,
            *_wrong_token(self.payment_token),
            *wrong_key(self.idempotency_key),
            *_wrong_expected_total(self.expected_total),
        ]
        if found:
            raise invalid("The order is not valid.", *found)
        return replace(self, shipping_address=address)


@dataclass(frozen=True)
class ListOrders:
    """A page of the caller's own orders. An administrator may also request those of `user_id` or of `everybody`."""

    user_id: str = ""
    everybody: bool = False
    status: Status | None = None
    limit: int = 0
    cursor: str = ""


@dataclass(frozen=True)
class CancelOrder:
    """Cancel an order. An empty `reason` means CUSTOMER_REQUEST."""

    order_id: str
    reason: str = ""


class OrdersService:
    """Use cases of orders. Collaborators are fixed at start; methods are safe to call concurrently.

    `provider_limits` says which order totals the payment provider can charge. `order_timeout` is how long an order may
    wait for stock or payment. Every method that takes an order's id raises NotFound (ORDER_NOT_FOUND) if the order is
    unknown or the caller may not see it.
    """

    def __init__(
        self,
        orders: OrderRepository,
        catalogue: Catalogue,
        clock: Clock,
        watchers: Watchers,
        tickets: StreamTickets,
        *,
        provider_limits: ProviderLimits,
        order_timeout: timedelta,
    ) -> None:
        self._orders = orders
        self._catalogue = catalogue
        self._clock = clock
        self._watchers = watchers
        self._tickets = tickets
        self._provider_limits = provider_limits
        self._order_timeout = order_timeout

    async def place(self, command: PlaceOrder, caller: Identity) -> Order:
        """Place an order at the catalogue's current prices.

        Returns the order in state PLACED. A repeated idempotency key within 24 hours returns the first result, even if
        the order or the catalogue has changed since.

        Raises:
            InvalidArgument: PRODUCT_UNKNOWN, CURRENCY_MIXED, TOTAL_TOO_LARGE, TOTAL_NOT_CHARGEABLE,
                IDEMPOTENCY_KEY_REUSED, or invalid fields.
            FailedPrecondition: PRODUCT_INACTIVE, PRICE_CHANGED.
            ResourceExhausted: TOO_MANY_ORDERS, TOO_MANY_UNPAID_ORDERS, TOO_MANY_UNPAID_PIECES, TOO_MANY_DECLINES.
            Unauthenticated: ACCOUNT_DELETED.
        """
        require_person(caller)
        command = command.validated()
        idempotency = None
        if command.idempotency_key is not None:
            scope = f"orders:{caller.subject}"
            idempotency = idempotency_record(scope, command.idempotency_key, command.fingerprint, Receipt)
        try:
            lines, total = await self._price(command)
        except ServiceError:
            # The order cannot be priced now. A repeated idempotency key still returns its first result.
            replayed = await self._orders.replay(idempotency) if idempotency else None
            if replayed is None:
                raise
            return replayed
        now = self._clock.now()
        order = Order(
            id=new_id("ord"),
            user_id=caller.subject,
            lines=lines,
            total=total,
            shipping_address=command.shipping_address,
            payment_token=command.payment_token,
            created_at=now,
            updated_at=now,
            moved_at=now,
        )
        try:
            origin = Origin.of(caller.subject, caller.device, command.client_address)
            placed = await self._orders.place(order, idempotency, origin, self._catalogue.on_hand)
        except ServiceError as error:
            if error.code is Code.RESOURCE_EXHAUSTED:
                REFUSED.labels(error.reason).inc()
                log.warning("order_refused", extra={"user_id": caller.subject, "reason": error.reason})
            raise
        log.info("order_placed", extra={"order_id": placed.id})
        return placed

    async def _price(self, command: PlaceOrder) -> tuple[list[OrderLine], Money]:
        """Return the lines at the catalogue's prices, and their total.

        Raises those errors of `place` that concern products and prices.
        """
        offers = await self._catalogue.offers([line.product_id for line in command.lines])
        lines, total = price_lines(command.lines, offers, self._provider_limits)
        _require_expected_total(command.expected_total, total)
        return lines, total

    async def get(self, order_id: str, caller: Identity) -> Order:
        """Return one of the caller's orders. An administrator may read any order."""
        require_person(caller)
        order = await self._orders.get(order_id)
        _require_owner_or_admin(caller, order)
        return order

    async def list_orders(self, query: ListOrders, caller: Identity) -> Page[Order]:
        """Return a page of orders, newest first.

        Raises:
            PermissionDenied: the caller requests the orders of others and is not an administrator.
            InvalidArgument: INVALID_CURSOR, or a limit outside 1 to 100.
        """
        require_person(caller)
        if query.everybody or query.user_id not in ("", caller.subject):
            require_admin(caller)
        user_id = query.user_id if query.everybody else (query.user_id or caller.subject)
        return await self._orders.page(user_id, query.status, page_limit(query.limit), query.cursor or None)

    async def cancel(self, command: CancelOrder, caller: Identity) -> Order:
        """Cancel one of the caller's orders before it is shipped. An administrator may cancel any order.

        A second cancellation by the same person changes nothing.

        Raises:
            InvalidArgument: the reason is not UPPER_SNAKE, or is reserved for the platform.
            FailedPrecondition: ILLEGAL_TRANSITION.
        """
        require_person(caller)
        reason = command.reason
        if reason and not _REASON.fullmatch(reason):
            raise invalid(
                "The reason is not valid.", ("reason", "must be UPPER_SNAKE of at most 64 letters, digits and _")
            )
        if reason in PLATFORM_REASONS:
            raise invalid("The reason is not valid.", ("reason", "must not be one that is reserved for the platform"))

        def cancel(order: Order) -> list[Payload]:
            _require_owner_or_admin(caller, order)
            return order.cancel(self._clock.now(), reason or CUSTOMER_REQUEST, by=caller.subject)

        return await self._orders.change(command.order_id, cancel)

    async def ship(self, order_id: str, caller: Identity) -> Order:
        """Record that a confirmed order left the warehouse. Administrators only.

        Raises FAILED_PRECONDITION (ILLEGAL_TRANSITION, ORDER_DISPUTED, ORDER_REFUNDED).
        """
        require_admin(caller)
        return await self._orders.change(order_id, lambda order: order.ship(self._clock.now()))

    async def deliver(self, order_id: str, caller: Identity) -> Order:
        """Record that a shipped order arrived. Administrators only. Raises FAILED_PRECONDITION (ILLEGAL_TRANSITION)."""
        require_admin(caller)
        return await self._orders.change(order_id, lambda order: order.deliver(self._clock.now()))

    async def watch(self, order_id: str, caller: Identity) -> AsyncGenerator[Order, None]:
        """Return a stream of the order: its current state, then each change until it is DELIVERED or CANCELLED.

        The caller must close the stream. Reading it raises the errors of `Watchers.watch`.
        """
        await self.get(order_id, caller)
        return self._watchers.watch(order_id, caller.subject)

    async def create_stream_ticket(self, order_id: str, caller: Identity) -> IssuedTicket:
        """Return a ticket that allows its bearer to watch this order once on behalf of the caller."""
        await self.get(order_id, caller)
        return await self._tickets.create(order_id, caller.token)

    async def redeem_stream_ticket(self, order_id: str, ticket: str) -> str:
        """Redeem a ticket and return the access token that it represents. No other credentials are needed.

        Raises UNAUTHENTICATED (STREAM_TICKET_INVALID).
        """
        return await self._tickets.redeem(order_id, ticket)

    async def get_payment_instruction(self, order_id: str, caller: Identity) -> Order:
        """Return an order for charging. Only the payments service may call this.

        The order has a payment token only while it is payable.
        """
        require_service(caller, "payments")
        return await self._orders.get(order_id)

    async def on_stock_reserved(self, event: StockReserved, inbox: InboxRecord) -> None:
        """Record that the products service has reserved every line."""
        await self._orders.change(event.order_id, lambda order: order.stock_reserved(self._clock.now()), inbox)

    async def on_stock_rejected(self, event: StockRejected, inbox: InboxRecord) -> None:
        """Cancel an order whose lines the products service could not reserve, or no longer reserves."""
        await self._orders.change(
            event.order_id, lambda order: order.stock_rejected(self._clock.now(), event.reason), inbox
        )

    async def on_payment_captured(self, event: PaymentCaptured, inbox: InboxRecord) -> None:
        """Confirm the order. If it is already cancelled, only record the payment in its timeline."""
        await self._orders.change(
            event.order_id, lambda order: order.payment_captured(self._clock.now(), event.amount), inbox
        )

    async def on_payment_declined(self, event: PaymentDeclined, inbox: InboxRecord) -> None:
        """Cancel an unpaid order whose payment the provider declined."""
        await self._orders.change(
            event.order_id, lambda order: order.payment_declined(self._clock.now(), event.reason), inbox
        )

    async def on_payment_refunded(self, event: PaymentRefunded, inbox: InboxRecord) -> None:
        """Record a refund, and cancel an unshipped order once its total is refunded."""
        await self._orders.change(
            event.order_id,
            lambda order: order.payment_refunded(self._clock.now(), event.refund_id, event.amount),
            inbox,
        )

    async def on_payment_refund_failed(self, event: PaymentRefundFailed, inbox: InboxRecord) -> None:
        """Record that the payer's bank returned a refund."""
        await self._orders.change(
            event.order_id, lambda order: order.refund_failed(self._clock.now(), event.refund_id, event.amount), inbox
        )

    async def on_payment_disputed(self, event: PaymentDisputed, inbox: InboxRecord) -> None:
        """Prevent the order from being shipped while the payer's bank disputes the charge."""
        await self._orders.change(
            event.order_id,
            lambda order: order.payment_disputed(self._clock.now(), event.dispute_id, event.amount),
            inbox,
        )

    async def on_payment_dispute_closed(self, event: PaymentDisputeClosed, inbox: InboxRecord) -> None:
        """Allow shipping again, or cancel an unshipped order whose total has been lost or refunded."""
        await self._orders.change(
            event.order_id,
            lambda order: order.dispute_closed(self._clock.now(), event.dispute_id, event.amount, event.outcome),
            inbox,
        )

    async def on_user_deleted(self, event: UserDeleted, inbox: InboxRecord) -> None:
        """Erase the recipient from all orders of a deleted account, and cancel its unshipped orders.

        Each order commits in its own transaction, and repetition is safe. The inbox record commits last, so that an
        interrupted erasure is repeated.
        """
        await self._orders.close_account(event.user_id, self._clock.now())
        async for orders in all_pages(partial(self._orders.page, event.user_id, None, _BATCH)):
            for order in orders:
                await self._orders.change(order.id, lambda order: order.erase_person(self._clock.now()))
        await self._orders.finish_erasure(inbox)
        log.info("person_erased", extra={"user_id": event.user_id})

    async def sweep(self) -> None:
        """Cancel orders that have waited for stock or payment for `order_timeout`. Concurrent sweeps are safe."""
        cancelled = 0

        async def time_out(order_id: str) -> None:
            nonlocal cancelled
            order = await self._orders.change(
                order_id, lambda order: order.time_out(self._clock.now(), self._order_timeout)
            )
            cancelled += order.cancel_reason == TIMED_OUT

        before = self._clock.now() - self._order_timeout
        async for orders in all_pages(partial(self._orders.waiting_since, before, _BATCH), _SWEEP_PAGES):
            await gather_logged([time_out(order.id) for order in orders], log)
        if cancelled:
            log.info("overdue_orders_cancelled", extra={"count": cancelled})


def _require_owner_or_admin(caller: Identity, order: Order) -> None:
    if order.user_id != caller.subject and not caller.is_admin:
        raise not_found("Order", "ORDER_NOT_FOUND")


def _require_expected_total(expected: Money | None, total: Money) -> None:
    if expected is not None and expected != total:
        raise ServiceError(
            Code.FAILED_PRECONDITION,
            "PRICE_CHANGED",
            "The prices have changed: look at the new total and order again.",
            amounts={"expected_total": expected, "total": total},
        )


def _wrong_lines(lines: Sequence[RequestedLine]) -> Iterator[tuple[str, str]]:
    if not 1 <= len(lines) <= MAX_LINES:
        yield "lines", f"must have 1 to {MAX_LINES} entries"
        return
    seen: set[str] = set()
    for index, line in enumerate(lines):
        if not is_id("prd", line.product_id):
            yield f"lines[{index}].product_id", "must be a product's id"
        elif line.product_id in seen:
            yield f"lines[{index}].product_id", "is listed before: add up the quantities"
        seen.add(line.product_id)
        if not 1 <= line.quantity <= MAX_QUANTITY:
            yield f"lines[{index}].quantity", f"must be between 1 and {MAX_QUANTITY}"


def _wrong_token(token: str) -> Iterator[tuple[str, str]]:
    if _CARD_NUMBER.fullmatch(token):
        yield "payment_token", "must be a provider's token, never a card number"
    elif not _TOKEN.fullmatch(token):
        yield "payment_token", "must be 1 to 255 letters, digits, or any of _ . : -"


def _wrong_expected_total(expected: Money | None) -> Iterator[tuple[str, str]]:
    if expected is None:
        return
    if not 0 <= expected.amount <= MAX_TOTAL:
        yield "expected_total.amount", f"must be between 0 and {MAX_TOTAL}, in minor units"
    if expected.currency not in CURRENCIES:
        yield "expected_total.currency", "must be a currency code of ISO 4217, such as EUR"
