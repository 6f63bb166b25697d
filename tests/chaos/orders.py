"""Orders that flow while a cluster suffers, and what must be true of them afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp

from knative.local.demo.shop import ADDRESS, FINAL, Person, Refused, Shop

PRICE = 250
PIECES = 1_000_000
_ORDERS_EACH = 10
"""Orders of one customer: what an account without history may have unpaid at once."""
_TOKENS = ("tok_ok",) * 16 + ("tok_declined", "tok_insufficient_funds", "tok_flaky", "tok_timeout")
_DECLINED = ("tok_declined", "tok_insufficient_funds")
_ANSWERED = (200, 201)
_PATIENCE = 900.0


@dataclass
class Attempt:
    """One request for an order: when it was sent, how long it took, and its status (0: none came)."""

    at: float
    seconds: float
    status: int


@dataclass
class Placed:
    """An order, and when it was acknowledged."""

    id: str
    token: str
    who: Person
    at: float


@dataclass
class Flow:
    """Customers who place orders, one after the other, each with one key until it is acknowledged."""

    shop: Shop
    admin: tuple[str, str]
    product: str = ""
    placed: list[Placed] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    registered: dict[str, float] = field(default_factory=dict)
    """When each person was registered, by e-mail address."""
    _end: asyncio.Event = field(default_factory=asyncio.Event)

    async def begin(self) -> None:
        """Make a product of this run's own."""
        admin = await self._administrator()
        body = {
            "sku": f"CHAOS-{uuid4().hex[:12]}",
            "name": "Unbreakable mug",
            "category": "kitchen",
            "price": {"amount": PRICE, "currency": "EUR"},
        }
        product = await self.shop.patiently("POST", "/v1/products", who=admin, json=body)
        self.product = product["id"]
        stock = {"on_hand": PIECES}
        await self.shop.patiently("PUT", f"/v1/products/{self.product}/stock", who=admin, json=stock)

    async def run(self, workers: int, rate: float) -> None:
        """Place `rate` orders a second where the platform keeps up, from `workers` customers at once, until `stop`."""
        await asyncio.gather(*(self._customers(workers / rate) for _ in range(workers)))

    def stop(self) -> None:
        """Place no more; what is under way is acknowledged first."""
        self._end.set()

    async def probe(self, seconds: float) -> float | None:
        """Place an order now; return the seconds until it is confirmed, or None if it was not within `seconds`."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                who = await self._register()
                order_id = await self._place(who, "tok_ok")
                while True:
                    order = await self.shop.patiently("GET", f"/v1/orders/{order_id}", who=who, seconds=seconds)
                    if order["status"] in FINAL:
                        return time.monotonic() - began if order["status"] == "CONFIRMED" else None
                    await asyncio.sleep(0.5)
        except TimeoutError:
            return None

    async def _customers(self, interval: float) -> None:
        await asyncio.sleep(random.uniform(0, interval))
        while not self._end.is_set():
            who = await self._register()
            for _ in range(_ORDERS_EACH):
                if self._end.is_set():
                    return
                began = time.monotonic()
                await self._place(who, random.choice(_TOKENS))
                await asyncio.sleep(max(0.0, interval - (time.monotonic() - began)))

    async def _register(self) -> Person:
        """Register a customer, whatever it takes."""
        while True:
            try:
                who = await self.shop.register()
            except (Refused, aiohttp.ClientError, OSError):
                await asyncio.sleep(1)
            else:
                self.people.append(who)
                self.registered[who.email] = time.monotonic()
                return who

    async def _place(self, who: Person, token: str) -> str:
        """Place an order: the same key until there is an answer."""
        body = {
            "lines": [{"product_id": self.product, "quantity": 1}],
            "shipping_address": ADDRESS,
            "payment_token": token,
        }
        headers = {"idempotency-key": uuid4().hex}
        deadline = time.monotonic() + _PATIENCE
        while True:
            began = time.monotonic()
            status, answer, pause = 0, None, 0.5
            try:
                status, answer, sent = await self.shop.raw("POST", "/v1/orders", who=who, headers=headers, json=body)
                pause = float(sent.get("Retry-After", pause))
            except (aiohttp.ClientError, OSError):  # TimeoutError included
                pass
            if status != 429:
                self.attempts.append(Attempt(began, time.monotonic() - began, status))
            if status in _ANSWERED and isinstance(answer, dict):
                self.placed.append(Placed(answer["id"], token, who, time.monotonic()))
                return str(answer["id"])
            if status == 401:
                who.tokens = (await self._again(who)).tokens
            elif status and status not in (409, 429) and status < 500:
                raise AssertionError(f"an order was refused with {status}: {answer}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no order could be placed for {_PATIENCE:.0f} s; the last status is {status}")
            await asyncio.sleep(min(pause, 5.0) * random.uniform(1, 1.5))

    async def _again(self, who: Person) -> Person:
        body = {"email": who.email, "password": who.password}
        tokens = await self.shop.patiently("POST", "/v1/sessions", json=body, seconds=_PATIENCE)
        return Person(who.email, who.password, who.profile, tokens)

    async def _administrator(self) -> Person:
        return await self._again(Person(*self.admin, {}, {}))

    async def violations(self, settle: float) -> tuple[list[str], dict[str, Any]]:
        """Wait until every order is final; return what is wrong, and what there is to know."""
        began = time.monotonic()
        listed: dict[str, dict[str, Any]] = {}
        told: Counter[tuple[str, str | None]] = Counter()
        found: list[str] = []
        replayed = await self._replay()
        by_person: dict[str, set[str]] = defaultdict(set)
        for order in self.placed:
            by_person[order.who.email].add(order.id)
        for person in self.people:
            who = await self._again(person)
            orders = await self._settled(who, began + settle)
            listed |= {order["id"]: order for order in orders}
            if strange := {order["id"] for order in orders} - by_person[person.email]:
                found.append(f"orders that nobody placed: {', '.join(sorted(strange))}")
            for message in await self.shop.all("/v1/notifications", who):
                told[message["template"], message.get("order_id")] += 1
        took = time.monotonic() - began
        for order in self.placed:
            found += _wrong(order, listed.get(order.id), told)
        confirmed = {key for key, order in listed.items() if order["status"] == "CONFIRMED"}
        found += await self._money(set(listed), confirmed)
        found += await self._stock(len(confirmed), began + settle)
        letters = await self._letters()
        found += [
            f"dead letter {letter['id']} of {letter['type']} has no reason or no trigger"
            for letter in letters
            if not (letter["error"] or letter["error_code"]) or not (letter["trigger"] or letter["possible_triggers"])
        ]
        reasons = Counter(
            order["timeline"][-1]["reason"] for order in listed.values() if order["status"] == "CANCELLED"
        )
        facts = {
            "orders": len(self.placed),
            "confirmed": len(confirmed),
            "cancelled": dict(reasons),
            "dead_letters": dict(Counter(f"{letter['type']}: {letter['error']}" for letter in letters)),
            "replayed": replayed,
            "final_after_seconds": round(took, 1),
        }
        return found, facts

    async def forget(self, since: float) -> list[Placed]:
        """Return the orders acknowledged after `since` that are missing, and check them and their accounts no more."""
        missing: list[Placed] = []
        for person in list(self.people):
            orders = [order for order in self.placed if order.who is person]
            try:
                listed = await self.shop.all("/v1/orders", await self._again(person))
            except Refused:
                if self.registered[person.email] < since:
                    raise
                listed = []
                self.people.remove(person)
            there = {order["id"] for order in listed}
            missing += [order for order in orders if order.at > since and order.id not in there]
        self.placed = [order for order in self.placed if order not in missing]
        return missing

    async def _settled(self, who: Person, until: float) -> list[dict[str, Any]]:
        while True:
            orders = await self.shop.all("/v1/orders", who)
            if all(order["status"] in FINAL for order in orders) or time.monotonic() > until:
                return orders
            await asyncio.sleep(2)

    async def _replay(self) -> int:
        """Give dead letters back to the broker, as an operator does after an outage; return how many there were."""
        admin = await self._administrator()
        done = await self.shop.patiently("POST", "/v1/admin/dead-letters/replay", who=admin)
        return int(done["replayed"])

    async def _letters(self) -> list[dict[str, Any]]:
        admin = await self._administrator()
        found = [
            letter
            for status in ("pending", "replayed")
            for letter in await self.shop.all(f"/v1/admin/dead-letters?status={status}", admin)
        ]
        ours = {f"{kind}_{order.id[4:]}" for order in self.placed for kind in ("ord", "pay")}
        return [letter for letter in found if letter["subject"] in ours]

    async def _money(self, ours: set[str], confirmed: set[str]) -> list[str]:
        admin = await self._administrator()
        kept: Counter[str] = Counter()
        charges: Counter[str] = Counter()
        for entry in await self.shop.all("/v1/admin/payments/ledger", admin):
            order_id = f"ord_{entry['payment_id'][4:]}"
            if order_id in ours and entry["outcome"] == "succeeded":
                sign = 1 if entry["kind"] == "charge" else -1
                kept[order_id] += sign * entry["amount"]["amount"]
                charges[order_id] += sign > 0
        found = [f"{order_id} was charged {count} times" for order_id, count in charges.items() if count > 1]
        wanted = {order_id: PRICE if order_id in confirmed else 0 for order_id in ours}
        return found + [
            f"of {order_id} {kept[order_id]} is kept, not {amount}"
            for order_id, amount in wanted.items()
            if kept[order_id] != amount
        ]

    async def _stock(self, confirmed: int, until: float) -> list[str]:
        while True:
            stock = await self.shop.stock(self.product)
            seen = stock["on_hand"], stock["reserved"]
            if seen == (PIECES - confirmed, 0):
                return []
            if time.monotonic() > until:
                return [f"stock is {seen}, not {PIECES - confirmed} on hand and none reserved"]
            await asyncio.sleep(2)


def _wrong(order: Placed, found: dict[str, Any] | None, told: Counter[tuple[str, str | None]]) -> list[str]:
    if found is None:
        return [f"order {order.id} is lost"]
    status = found["status"]
    if status not in FINAL:
        return [f"order {order.id} is still {status}"]
    if status == "CONFIRMED" and order.token in _DECLINED:
        return [f"order {order.id} is confirmed with {order.token}"]
    template = {"CONFIRMED": "order_confirmed", "CANCELLED": "order_cancelled"}[status]
    count = told[template, order.id]
    return [] if count == 1 else [f"{count} messages {template} about {order.id}"]
