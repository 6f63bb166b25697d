"""The four stories of the demo. Each raises Off, with the expected and the actual result, if they differ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from knative.local.demo.shop import Person, Refused, Shop

Say = Callable[[str], None]


class Off(Exception):
    """A result is not the expected one."""


@dataclass
class Visit:
    """State that the stories share: the shop, the customer, the product with its stock `before`, and their orders."""

    shop: Shop
    say: Say
    person: Person
    product: dict[str, Any]
    before: dict[str, Any]
    orders: list[dict[str, Any]] = field(default_factory=list)

    async def buy(self, quantity: int, token: str, expected: str, reason: str = "") -> dict[str, Any]:
        """Place an order and wait until it is final. Raises Off unless it ends in `expected`, for `reason` if given."""
        price = self.product["price"]
        shown = {"amount": quantity * price["amount"], "currency": price["currency"]}
        order = await self.shop.order(self.person, {self.product["id"]: quantity}, token, expected_total=shown)
        self.say(f"ordered {quantity} x {self.product['name']} for {money(order['total'])} with {token}")
        order = await self.shop.settled(self.person, order["id"])
        self.orders.append(order)
        expect(order["status"] == expected, f"{expected}, saw {order['status']}")
        if reason:
            seen = order["timeline"][-1]["reason"]
            expect(seen == reason, f"the reason {reason}, saw {seen}")
        return order

    async def told(self, template: str, order_id: str) -> dict[str, Any]:
        """Wait for the message of this template about this order to be in the mailbox; return the message."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for message in await self.shop.all("/v1/notifications", self.person):
                if message["template"] == template and message.get("order_id") in (order_id, None):
                    self.say(f"mailbox: [bold]{message['subject']}[/bold]")
                    return message
            await asyncio.sleep(0.1)
        raise Off(f"expected the e-mail {template}, and none came within 20 s")

    async def stock_is(self, on_hand: int, reserved: int = 0) -> None:
        """Wait until the stock has these numbers."""
        await eventually(
            lambda: self._stock_matches(on_hand, reserved), f"stock of {on_hand} on hand and {reserved} reserved"
        )

    async def _stock_matches(self, on_hand: int, reserved: int) -> bool:
        stock = await self.shop.stock(self.product["id"])
        return bool(stock["on_hand"] == on_hand and stock["reserved"] == reserved)

    def show_timeline(self, order: dict[str, Any]) -> None:
        """Print the order's steps, each with the milliseconds since the first."""
        start = order["timeline"][0]["at"]
        for step in order["timeline"]:
            why = f"  [dim]{step['reason']}[/dim]" if step["reason"] else ""
            self.say(f"  {milliseconds(start, step['at']):>6} ms  {step['status']}{why}")


async def paid(visit: Visit) -> None:
    """Order and pay. The order is CONFIRMED; the e-mail is shown."""
    order = await visit.buy(2, "tok_ok", "CONFIRMED")
    message = await visit.told("order_confirmed", order["id"])
    visit.show_timeline(await visit.shop.call("GET", f"/v1/orders/{order['id']}", who=visit.person))
    body = (await visit.shop.call("GET", f"/v1/notifications/{message['id']}", who=visit.person)).get("body", "")
    for line in body.strip().splitlines()[:12]:
        visit.say(f"  [dim]| {line}[/dim]")
    await visit.stock_is(visit.before["on_hand"] - 2)


async def declined(visit: Visit) -> None:
    """Order with a card that is declined. The order is CANCELLED, and its stock is available again."""
    order = await visit.buy(1, "tok_declined", "CANCELLED", "PAYMENT_DECLINED")
    visit.show_timeline(order)
    await visit.stock_is(visit.before["on_hand"] - 2)
    visit.say("the reserved piece is back in stock")


async def sold_out(visit: Visit) -> None:
    """Order more than is available. The order is refused, or CANCELLED (OUT_OF_STOCK), and nothing is charged.

    A new customer's unpaid orders may hold only a share of a product's stock, unless UNPAID_STOCK_SHARE is 0.
    """
    wanted = visit.before["available"] + 1
    try:
        order = await visit.buy(wanted, "tok_ok", "CANCELLED", "OUT_OF_STOCK")
    except Refused as refused:
        expect(refused.reason == "TOO_MANY_UNPAID_PIECES", f"an order of {wanted} refused, saw {refused}")
        visit.say(f"ordered {wanted} x {visit.product['name']}: {refused.problem['detail']}")
        return
    visit.show_timeline(order)
    payment = await visit.shop.payment(visit.person, order["id"])
    expect(payment is None or payment["captured"]["amount"] == 0, "nothing charged")
    visit.say("nothing was charged")


async def cancelled(visit: Visit) -> None:
    """Cancel a confirmed order. The whole amount is refunded; the e-mail is shown."""
    order = await visit.buy(1, "tok_ok", "CONFIRMED")
    await visit.shop.call(
        "POST", f"/v1/orders/{order['id']}/cancel", who=visit.person, json={"reason": "CHANGED_MY_MIND"}
    )
    visit.say("cancelled it")
    await eventually(lambda: _refunded(visit, order["id"]), "the whole amount refunded")
    await visit.told("payment_refunded", order["id"])
    order = await visit.shop.settled(visit.person, order["id"], status="CANCELLED")
    visit.show_timeline(order)
    await visit.stock_is(visit.before["on_hand"] - 2)


async def _refunded(visit: Visit, order_id: str) -> bool:
    payment = await visit.shop.payment(visit.person, order_id)
    return payment is not None and payment["refunded"] == payment["captured"] == payment["amount"]


async def adds_up(visit: Visit) -> tuple[dict[str, Any], int, int]:
    """Check stock and money after all stories; return the stock, and the charged and the refunded amount.

    The amounts are in minor units. Raises Off if the numbers do not add up.
    """
    captured = refunded = 0
    for order in visit.orders:
        payment = await visit.shop.payment(visit.person, order["id"])
        if payment is not None:
            captured += payment["captured"]["amount"]
            refunded += payment["refunded"]["amount"]
    sold = visit.orders[0]["total"]["amount"]
    expect(captured - refunded == sold, f"{sold} kept of the money, saw {captured} - {refunded}")
    stock = await visit.shop.stock(visit.product["id"])
    expect(stock["on_hand"] == visit.before["on_hand"] - 2, "two pieces fewer on the shelf")
    expect(stock["reserved"] == visit.before["reserved"], "nothing left reserved")
    return stock, captured, refunded


def expect(held: bool, what: str) -> None:
    """Raise Off, which names `what` was expected, unless `held` is true."""
    if not held:
        raise Off(f"expected {what}")


async def eventually(check: Callable[[], Awaitable[bool]], what: str, seconds: float = 60.0) -> None:
    """Wait until `check` returns true. Raises Off after `seconds`."""
    deadline = time.monotonic() + seconds
    while not await check():
        if time.monotonic() > deadline:
            raise Off(f"expected {what} within {seconds:.0f} s")
        await asyncio.sleep(0.05)


def money(amount: dict[str, Any]) -> str:
    """Return an amount as text for people; the demo's currencies have two decimals."""
    return f"{amount['amount'] / 100:.2f} {amount['currency']}"


def milliseconds(start: str, end: str) -> int:
    """Return the milliseconds between two RFC 3339 times."""
    took = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    return round(took.total_seconds() * 1000)


STORIES = {
    "Order and pay": paid,
    "A card that is declined": declined,
    "More than there is": sold_out,
    "A change of mind": cancelled,
}
