"""The invariants that must hold once the platform is idle again, whichever processes died before."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from functions.notifications.channels.smtp import MAX_CONNECTIONS
from knative.local.demo.shop import Person, Shop
from tests.crash.mail import MailServer
from tests.crash.patience import PRICE
from tests.crash.platform import Mortal
from tests.crash.points import BROKER
from tests.crash.story import DELETED, PIECES, Round, Wish

DRAIN_SECONDS = 60.0
MAIL_SECONDS = 300.0
"""A mail is retried after one, two and four minutes; the same retries send the mail of a sender that died."""
SWEEP_SECONDS = 2.0
_TEMPLATES = {"CONFIRMED": "order_confirmed", "CANCELLED": "order_cancelled"}


class Violation(AssertionError):
    """An invariant does not hold; the message states the invariant and the observation."""


async def drained(
    platform: Mortal, complaints: Callable[[], Awaitable[list[str]]], seconds: float = DRAIN_SECONDS
) -> None:
    """Return once there are no complaints and no undelivered events. Raises Violation after `seconds`."""
    deadline, next_sweep = time.monotonic() + seconds, 0.0
    while True:
        if time.monotonic() >= next_sweep:
            await platform.sweep()
            next_sweep = time.monotonic() + SWEEP_SECONDS
        found = [*await on_the_way(platform), *await complaints()]
        if not found:
            return
        if time.monotonic() > deadline:
            raise Violation("; ".join(found))
        await asyncio.sleep(0.1)


async def on_the_way(platform: Mortal) -> list[str]:
    """Return the committed events that are not delivered yet: in an outbox, or at the broker."""
    waiting = {part: await platform.sample(part, "shop_outbox_rows") for part in platform.domains}
    found = [f"{count:g} rows in the outbox of {part}" for part, count in waiting.items() if count]
    if pending := await platform.sample(BROKER, "shop_broker_pending"):
        found.append(f"{pending:g} deliveries pending at the broker")
    return found


async def broken(round_: Round) -> list[str]:
    """Return all violations of invariants in a round."""
    found = await _orders(round_)
    found += await _money(round_)
    found += await _stock(round_)
    found += await _dead_letters(round_)
    return found + await _messages(round_)


async def _orders(round_: Round) -> list[str]:
    placed = await round_.shop.all("/v1/orders", round_.buyer)
    status = {order["id"]: order["status"] for order in placed}
    mine = {wish.order_id: wish.status for wish in round_.wishes if wish.owner != DELETED}
    found = [f"order {key} that nobody wished for" for key in status.keys() - mine.keys()]
    found += [f"order {key} is lost" for key in mine.keys() - status.keys()]
    found += [
        f"order {key} is {status[key]}, not {wanted}"
        for key, wanted in mine.items()
        if status.get(key, wanted) != wanted
    ]
    everybody = await round_.shop.all("/v1/admin/orders", round_.admin)
    left = {order["id"]: order["status"] for order in everybody}
    for wish in round_.wishes:
        if wish.owner == DELETED and left.get(wish.order_id) != wish.status:
            found.append(f"order {wish.order_id} of a deleted account is {left.get(wish.order_id)}")
    return found


async def _money(round_: Round) -> list[str]:
    books: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in await round_.shop.all("/v1/admin/payments/ledger", round_.admin):
        if entry["outcome"] == "succeeded":
            books[entry["payment_id"]].append(entry)
    return [text for wish in round_.wishes for text in _books_of(wish, books[f"pay_{wish.order_id[4:]}"])]


def _books_of(wish: Wish, entries: list[dict[str, Any]]) -> list[str]:
    charges = [entry["amount"]["amount"] for entry in entries if entry["kind"] == "charge"]
    refunded = sum(entry["amount"]["amount"] for entry in entries if entry["kind"] == "refund")
    found = []
    if len(charges) > 1 or (wish.charged and not charges):
        found.append(f"order {wish.order_id} was charged {len(charges)} times")
    kept = PRICE - wish.refunded if wish.status == "CONFIRMED" else 0
    if sum(charges) - refunded != kept:
        found.append(f"of order {wish.order_id} {sum(charges)} - {refunded} is kept, not {kept}")
    return found


async def _stock(round_: Round) -> list[str]:
    sold = len([wish for wish in round_.wishes if wish.status == "CONFIRMED"])
    found = []
    for product_id, on_hand in ((round_.product_id, PIECES - sold), (round_.sold_out_id, 0)):
        stock = await round_.shop.stock(product_id)
        if (stock["on_hand"], stock["reserved"]) != (on_hand, 0):
            found.append(f"stock of {product_id} is {stock}, not {on_hand} and none reserved")
    return found


async def _dead_letters(round_: Round) -> list[str]:
    letters = await round_.shop.all("/v1/admin/dead-letters", round_.admin)
    ours = Counter(letter["event_id"] for letter in letters)
    found = [
        f"dead letter {letter['type']} to {letter['trigger']}: {letter['error']}"
        for letter in letters
        if not letter["event_id"].startswith("poison-")
    ]
    return found + [f"{ours[key]} dead letters of {key}" for key in round_.poison if ours[key] != 1]


async def _messages(round_: Round) -> list[str]:
    """Check that the buyer has one notification for each event, sent or pending; return the violations."""
    messages = await round_.shop.all("/v1/notifications", round_.buyer)
    told = Counter((message["template"], message.get("order_id")) for message in messages)
    wanted: Counter[tuple[str, str | None]] = Counter()
    for wish in round_.wishes:
        if wish.owner == round_.buyer.id:
            wanted[_TEMPLATES[wish.status], wish.order_id] += 1
    told_of_orders = Counter({key: count for key, count in told.items() if key[0] in _TEMPLATES.values()})
    # An order that was confirmed before its buyer cancelled it has two notifications: confirmed, then cancelled.
    extra = {key for key in told_of_orders - wanted if ("order_cancelled", key[1]) not in wanted}
    found = [f"told {told[key]} times of {key}" for key in told if told[key] > 1 or key in extra]
    return found + [f"never told of {key}" for key in wanted - told_of_orders]


async def unsent(shop: Shop, people: list[Person], mail: MailServer, deaths: int) -> list[str]:
    """Return violations for mail that was never sent, or was sent again although no sender died.

    A sender that dies after sending a mail and before recording that sends the mail again, with the same Message-ID.
    This concerns only the mails that it was sending when it died.
    """
    messages = [message for who in people for message in await shop.all("/v1/notifications", who)]
    sent = [message["id"] for message in messages if message["status"] == "SENT"]
    found = [f"{m['template']} {m['id']} is still to be sent" for m in messages if m["status"] == "PENDING"]
    found += [f"{key} says that it was sent, and was not" for key in sent if not mail.taken[key]]
    again = sum(mail.taken[key] - 1 for key in sent if mail.taken[key])
    if again > deaths * MAX_CONNECTIONS:
        found.append(f"{again} messages were sent again")
    return found
