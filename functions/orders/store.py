"""Storage of orders: entity mappings, indexes and the repository."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from events.catalog import Payload
from functions.orders.domain import DeletedAccount, Order, Receipt, Status
from functions.orders.stream_tickets import StreamTicket
from functions.orders.velocity import EarlierOrders, Origin, StockNeeded, VelocityLimits, VelocityRecord, count_order
from functions.runtime.errors import Code, ServiceError, not_found, unauthenticated
from functions.runtime.ids import is_id
from functions.runtime.inbox import InboxRecord, commit_inbox_record
from functions.runtime.store.port import Changes, EntityMapping, IdempotencyRecord, IndexKey, Page, Ref, Store
from observability.failpoints import failpoints

_EVERYTHING = "any"  # the partition that contains all entities of an index
_ACCESS_TOKENS_EXPIRE = timedelta(days=1)


def sort_key(at: datetime) -> str:
    """Return a UTC time as text that sorts chronologically. Stored keys have no time zone."""
    return at.replace(tzinfo=None).isoformat(timespec="microseconds")


def _indexes(order: Order) -> Iterator[IndexKey]:
    created = sort_key(order.created_at)
    yield IndexKey("all", _EVERYTHING, created)
    yield IndexKey("all", order.status, created)
    yield IndexKey("user", order.user_id, created)
    yield IndexKey("user", f"{order.user_id}:{order.status}", created)
    if order.payable:
        yield IndexKey("waiting", _EVERYTHING, sort_key(order.moved_at))


MAPPINGS: tuple[EntityMapping[Any], ...] = (
    EntityMapping(Order, "order", indexes=_indexes),
    EntityMapping(
        DeletedAccount, "deleted-account", expires_at=lambda account: account.deleted_at + _ACCESS_TOKENS_EXPIRE
    ),
    EntityMapping(StreamTicket, "stream-ticket", expires_at=lambda ticket: ticket.expires_at),
    EntityMapping(VelocityRecord, "pace", expires_at=lambda record: record.expires_at),
)


class _NotPlacedYet(ServiceError):
    """Internal error: no order was placed with this idempotency key. Callers of this module never see it."""

    def __init__(self) -> None:
        super().__init__(Code.NOT_FOUND, "ORDER_NOT_FOUND", "Order not found.")


class OrderRepository:
    """The orders in `store`.

    `velocity_limits` bound the rate of new orders; None means no limits. `on_change` is called with the id of an order
    after a change to the order was committed.
    """

    def __init__(self, store: Store, velocity_limits: VelocityLimits | None, on_change: Callable[[str], None]) -> None:
        self._store = store
        self._velocity_limits = velocity_limits
        self._on_change = on_change

    async def get(self, order_id: str) -> Order:
        """Return an order; raises NotFound (ORDER_NOT_FOUND)."""
        order = await self._store.get(Order, order_id) if is_id("ord", order_id) else None
        return _required(order)

    async def replay(self, idempotency: IdempotencyRecord) -> Order | None:
        """Return the order that was placed with this key, in its state at that time; None if there is none.

        Raises INVALID_ARGUMENT (IDEMPOTENCY_KEY_REUSED), when the key was used for another request.
        """

        def nothing(_: Sequence[Any]) -> Changes[Receipt]:
            raise _NotPlacedYet  # the store then writes nothing, so that the key stays free

        try:
            receipt = await self._store.transact([], nothing, idempotency=idempotency)
        except _NotPlacedYet:
            return None
        return (await self.get(receipt.id)).as_placed()

    async def place(
        self,
        order: Order,
        idempotency: IdempotencyRecord | None,
        origin: Origin,
        on_hand: Callable[[Sequence[str]], Awaitable[Mapping[str, int]]],
    ) -> Order:
        """Store a new order, or return the order that was already placed with the key of `idempotency`.

        `on_hand` returns the stock of products; it is called only if the order's limits depend on it.

        Raises:
            Unauthenticated: ACCOUNT_DELETED.
            ResourceExhausted: see `velocity.count_order`.
            InvalidArgument: see `replay`.
        """
        earlier = await self._earlier(origin)
        try:
            return await self._place(order, idempotency, origin, earlier)
        except StockNeeded:
            stock = await on_hand([line.product_id for line in order.lines])
            return await self._place(order, idempotency, origin, replace(earlier, on_hand=stock))

    async def _earlier(self, origin: Origin) -> EarlierOrders:
        """Read the data on which the limits of a new order depend, beyond what the transaction reads."""
        if self._velocity_limits is None:
            return EarlierOrders({})
        ids = dict.fromkeys([*origin.records, *origin.shards])
        found = await self._store.get_many(VelocityRecord, list(ids))
        still_open = dict.fromkeys(order_id for record in found.values() for order_id in record.open)
        orders = await self._store.get_many(Order, list(still_open)) if still_open else {}
        return EarlierOrders(orders, [record for key, record in found.items() if key not in origin.records])

    async def _place(
        self, order: Order, idempotency: IdempotencyRecord | None, origin: Origin, earlier: EarlierOrders
    ) -> Order:
        counted = origin.records if self._velocity_limits is not None else []
        refs = [
            Ref(Order, order.id),
            Ref(DeletedAccount, order.user_id),
            *(Ref(VelocityRecord, record_id) for record_id in counted),
        ]

        new = order

        def place(found: Sequence[Any]) -> Changes[Receipt]:
            nonlocal new
            if found[1] is not None:
                raise unauthenticated("ACCOUNT_DELETED", "This account was deleted.")
            new = replace(order, timeline=[])  # `place` may run several times, so it must not change `order`
            put: list[Any] = [new]
            if self._velocity_limits is not None:
                records = {
                    record_id: record or VelocityRecord(record_id, order.created_at)
                    for record_id, record in zip(counted, found[2:], strict=True)
                }
                put += count_order(origin, records, order, earlier, self._velocity_limits)
            return Changes(Receipt(new.id), put, events=new.placed())

        with failpoints("orders.place"):
            receipt = await self._store.transact(refs, place, idempotency=idempotency, likely_new=not counted)
        return (new if receipt.id == new.id else await self.get(receipt.id)).as_placed()

    async def change(
        self, order_id: str, act: Callable[[Order], Sequence[Payload]], inbox: InboxRecord | None = None
    ) -> Order:
        """Change the order with `act`, and commit it together with the events that `act` returns and with `inbox`.

        Writes no new version if `act` appended no timeline entry. Raises NotFound (ORDER_NOT_FOUND), and the errors of
        `act`.
        """

        def change(found: Sequence[Any]) -> Changes[Order]:
            order = _required(found[0])
            before = len(order.timeline)
            events = act(order)
            return Changes(order, [order] if len(order.timeline) > before else [], events=events)

        if not is_id("ord", order_id):
            return _required(None)
        with failpoints("orders.change"):
            order = await self._store.transact([Ref(Order, order_id)], change, idempotency=inbox)
        self._on_change(order_id)
        return order

    async def page(self, user_id: str, status: Status | None, limit: int, cursor: str | None) -> Page[Order]:
        """Return a page of orders, newest first. An empty `user_id` means all users, a `status` of None any status."""
        index, partition = ("user", user_id) if user_id else ("all", _EVERYTHING)
        if status is not None:
            partition = f"{user_id}:{status}" if user_id else status
        return await self._store.page(Order, index, partition, limit=limit, cursor=cursor, descending=True)

    async def waiting_since(self, before: datetime, limit: int, cursor: str | None) -> Page[Order]:
        """Return orders that wait for stock or payment and whose status is unchanged since `before`, oldest first."""
        return await self._store.page(Order, "waiting", _EVERYTHING, limit=limit, cursor=cursor, until=sort_key(before))

    async def close_account(self, user_id: str, at: datetime) -> None:
        """Refuse further orders of this person, and delete the record that counts the person's orders."""

        def close(found: Sequence[Any]) -> Changes[None]:
            deleted, record = found
            put = [] if deleted else [DeletedAccount(user_id, at)]
            return Changes(None, put, delete=[record] if record else [])

        with failpoints("orders.close-account"):
            await self._store.transact([Ref(DeletedAccount, user_id), Ref(VelocityRecord, user_id)], close)

    async def finish_erasure(self, inbox: InboxRecord) -> None:
        """Commit the inbox record of an erasure, and request a purge of the store's files."""
        self._store.request_purge()
        with failpoints("orders.mark"):
            await commit_inbox_record(self._store, inbox)


def _required(order: Order | None) -> Order:
    if order is None:
        raise not_found("Order", "ORDER_NOT_FOUND")
    return order
