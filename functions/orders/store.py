"""How orders are kept: kinds, indexes, and the one way to change an order, which wakes its watchers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from events.catalog import Payload
from functions.orders.domain import Order, Status
from functions.orders.velocity import Budgets, Pace, address_id, spend
from functions.runtime.errors import Code, ServiceError, not_found, unauthenticated
from functions.runtime.ids import is_id
from functions.runtime.store.port import Changes, EntityMapping, IdempotencyRecord, IndexKey, Page, Ref, Store
from observability.failpoints import failpoint

_TOKENS_ARE_OVER = timedelta(days=1)
ANY = "any"  # the partition of an index that has only one


@dataclass(frozen=True)
class Receipt:
    """What an Idempotency-Key remembers: only which order, so that nothing personal outlives its erasure."""

    id: str
    version: int = 1


@dataclass
class DeletedAccount:
    """A person whose account is gone: access tokens outlive it, and must not place orders any more."""

    id: str
    deleted_at: datetime
    version: int = 0


@dataclass
class StreamTicket:
    """A ticket that was not redeemed yet (see `tickets`); `id` is its digest, `sealed` the access token, encrypted."""

    id: str
    sealed: str
    expires_at: datetime
    version: int = 0


def sortable(at: datetime) -> str:
    """A time as text that sorts as the time does."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f")


def _indexes(order: Order) -> Iterator[IndexKey]:
    created = sortable(order.created_at)
    yield IndexKey("all", ANY, created)
    yield IndexKey("all", order.status, created)
    yield IndexKey("user", order.user_id, created)
    yield IndexKey("user", f"{order.user_id}:{order.status}", created)
    if order.payable:
        yield IndexKey("waiting", ANY, sortable(order.moved_at))


MAPPINGS: tuple[EntityMapping[Any], ...] = (
    EntityMapping(Order, "order", indexes=_indexes),
    EntityMapping(
        DeletedAccount, "deleted-account", expires_at=lambda account: account.deleted_at + timedelta(days=1)
    ),
    EntityMapping(StreamTicket, "stream-ticket", expires_at=lambda ticket: ticket.expires_at),
    EntityMapping(Pace, "pace", expires_at=lambda pace: pace.expires_at),
)


class NotPlacedYet(ServiceError):
    """No order was placed with this key; never leaves this module."""

    def __init__(self) -> None:
        super().__init__(Code.NOT_FOUND, "ORDER_NOT_FOUND", "Order not found.")


def _nobody(_: str) -> None:
    return None


@dataclass(frozen=True)
class Orders:
    """The orders in `store`; `changed` is told the id of each order after a change of it was committed."""

    store: Store
    changed: Callable[[str], None] = _nobody

    async def get(self, order_id: str) -> Order:
        """Raises NOT_FOUND (ORDER_NOT_FOUND)."""
        order = await self.store.get(Order, order_id) if is_id("ord", order_id) else None
        return _required(order)

    async def replay(self, idempotency: IdempotencyRecord) -> Order | None:
        """The order that was placed with this key, as it was then; None when there is none.

        Raises INVALID_ARGUMENT (IDEMPOTENCY_KEY_REUSED) when the key was used for another request.
        """

        def nothing(_: Sequence[Any]) -> Changes[Receipt]:
            raise NotPlacedYet  # the store then writes nothing, so that the key stays free

        try:
            receipt = await self.store.transact([], nothing, idempotency=idempotency)
        except NotPlacedYet:
            return None
        return (await self.get(receipt.id)).as_placed()

    async def place(
        self,
        order: Order,
        idempotency: IdempotencyRecord | None,
        budgets: Budgets | None = None,
        client_address: str = "",
    ) -> Order:
        """Store a new order, or return the one that `idempotency` remembers; `budgets` bound how many there may be.

        Raises UNAUTHENTICATED (ACCOUNT_DELETED), RESOURCE_EXHAUSTED as `velocity.spend` does, and INVALID_ARGUMENT as
        `replay` does.
        """
        account_ref = Ref(Pace, order.user_id)
        address_ref = Ref(Pace, address_id(client_address, order.user_id))
        earlier: dict[str, Order] = {}
        if (
            budgets is not None
            and (pace := await self.store.get(Pace, order.user_id)) is not None
            and pace.open
        ):
            earlier = await self.store.get_many(Order, pace.open)

        def place(found: Sequence[Any]) -> Changes[Receipt]:
            if found[1] is not None:
                raise unauthenticated("ACCOUNT_DELETED", "This account was deleted.")
            new = replace(order, timeline=[])  # afresh: a lost race runs this again
            put: list[Any] = [new]
            if budgets is not None:
                paces = [
                    kept or Pace(ref.id, order.created_at)
                    for ref, kept in zip(refs[2:], found[2:], strict=True)
                ]
                address = paces[1] if client_address else None
                put += spend(paces[0], address, order.id, earlier, budgets, order.created_at)
            return Changes(Receipt(new.id), put, events=new.placed())

        refs = [Ref(Order, order.id), Ref(DeletedAccount, order.user_id)]
        if budgets is not None:
            refs += [account_ref, address_ref] if client_address else [account_ref]
        failpoint("orders.place.before")
        receipt = await self.store.transact(refs, place, idempotency=idempotency)
        failpoint("orders.place.after")
        return (await self.get(receipt.id)).as_placed()

    async def change(
        self,
        order_id: str,
        act: Callable[[Order], Sequence[Payload]],
        idempotency: IdempotencyRecord | None = None,
    ) -> Order:
        """Let `act` change the order, and commit it with the events it returns and `idempotency`.

        Writes no new version when `act` left no timeline entry. Raises NOT_FOUND, and what `act` raises.
        """

        def change(found: Sequence[Any]) -> Changes[Order]:
            order = _required(found[0])
            before = len(order.timeline)
            events = act(order)
            return Changes(order, [order] if len(order.timeline) > before else [], events=events)

        if not is_id("ord", order_id):
            return _required(None)
        failpoint("orders.change.before")
        order = await self.store.transact([Ref(Order, order_id)], change, idempotency=idempotency)
        failpoint("orders.change.after")
        self.changed(order_id)
        return order

    async def page(self, user_id: str, status: Status | None, limit: int, cursor: str | None) -> Page[Order]:
        """Newest first; everybody's for an empty `user_id`, of any status for None."""
        index, partition = ("user", user_id) if user_id else ("all", ANY)
        if status is not None:
            partition = f"{user_id}:{status}" if user_id else status
        return await self.store.page(Order, index, partition, limit=limit, cursor=cursor, descending=True)

    async def waiting_since(self, before: datetime, limit: int, cursor: str | None) -> Page[Order]:
        """Orders that have waited for stock or payment, without a move, since `before` or longer."""
        return await self.store.page(
            Order, "waiting", ANY, limit=limit, cursor=cursor, until=sortable(before)
        )

    async def close_account(self, user_id: str, at: datetime) -> None:
        """Take no further orders of this person."""
        failpoint("orders.close-account.before")
        await self.store.transact(
            [Ref(DeletedAccount, user_id)],
            lambda found: Changes(None, [] if found[0] else [DeletedAccount(user_id, at)]),
        )
        failpoint("orders.close-account.after")

    async def inbox_record(self, idempotency: IdempotencyRecord) -> None:
        """Commit an inbox mark alone, for work that was committed in parts."""
        failpoint("orders.mark.before")
        await self.store.transact([], lambda _: Changes(None), idempotency=idempotency)
        failpoint("orders.mark.after")


def _required(order: Order | None) -> Order:
    if order is None:
        raise not_found("Order", "ORDER_NOT_FOUND")
    return order
