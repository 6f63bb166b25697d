"""The activity in the shop while its parts die: people and orders of every kind, each with an expected result.

Every request is repeated with the same idempotency key until it is answered. So every request takes effect in the end,
exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp

from knative.local.demo.shop import Person, Refused, Shop
from tests.crash.mail import BOUNCING, GREYLISTED, MailServer
from tests.crash.patience import PATIENCE, PRICE, login, new_product, patiently, publish, register
from tests.crash.platform import EMAIL, PASSWORD, Mortal

# The subject of a mail with a code, the path to request the mail, and the path to use the code.
VERIFY = ("Is this your address?", "/v1/users/me/email-verification", "/v1/email-verifications")
RESET = ("Your new password", "/v1/password-resets", "/v1/password-resets/confirm")
# The subject of a mail with a code about a change of address, and the path to use the code.
MOVE = ("Is this your new address?", "/v1/email-changes/confirm")
MOVE_BACK = ("Your account has another address now", "/v1/email-changes/undo")
PIECES = 1000
DELETED = "deleted"
"""The owner of an order whose owner's account was deleted."""


@dataclass
class Wish:
    """An order and its expected result: the status, and the amount to be refunded."""

    order_id: str
    status: str
    refunded: int = 0
    charged: bool = True
    owner: str = ""


@dataclass
class Round:
    """The activity between two checks. A round has stock and people of its own, so that it can be checked alone."""

    shop: Shop
    platform: Mortal
    mail: MailServer
    admin: Person
    buyer: Person
    product_id: str
    sold_out_id: str
    wishes: list[Wish] = field(default_factory=list)
    customers: list[Person] = field(default_factory=list)
    poison: set[str] = field(default_factory=set)

    async def wave(self, *, rotate_keys: bool = False) -> None:
        """Run all actions of people concurrently, and wait for their ends."""
        acts: list[Awaitable[None]] = [
            *[self._buy("tok_ok", "CONFIRMED") for _ in range(3)],
            *[self._buy(token, "CONFIRMED") for token in ("tok_timeout", "tok_flaky")],
            self._buy("tok_declined", "CANCELLED"),
            self._buy("tok_ok", "CANCELLED", sold_out=True),
            self._change_of_mind(at_once=True),
            self._change_of_mind(at_once=False),
            self._refund(),
            self._watch(),
            self._life(),
            self._forgetful(),
            self._moves(),
            self._write_to_nobody(),
            self._join(f"{GREYLISTED}{uuid4().hex}@example.com"),
            self._join(f"{BOUNCING}{uuid4().hex}@example.com"),
            self._new_product(),
            self._logs_out(),
            self._look_into_the_mailbox(),
            self._poison(),
        ]
        if rotate_keys:
            acts.append(self._rotate_keys())
        await asyncio.gather(*acts)

    async def _order(self, who: Person, token: str, product_id: str) -> str:
        placed = await self.shop.order(who, {product_id: 1}, token)
        return str(placed["id"])

    async def _buy(self, token: str, status: str, *, sold_out: bool = False) -> None:
        order_id = await self._order(self.buyer, token, self.sold_out_id if sold_out else self.product_id)
        self.wishes.append(Wish(order_id, status, charged=status == "CONFIRMED", owner=self.buyer.id))

    async def _change_of_mind(self, *, at_once: bool) -> None:
        order_id = await self._order(self.buyer, "tok_ok", self.product_id)
        wish = Wish(order_id, "CANCELLED", refunded=PRICE, owner=self.buyer.id)
        self.wishes.append(wish)
        if at_once:
            wish.charged = False  # or it is charged, and then refunded
        else:
            await self.shop.settled(self.buyer, order_id, seconds=PATIENCE)
        await patiently(self.shop, "POST", f"/v1/orders/{order_id}/cancel", who=self.buyer, json={"reason": ""})

    async def _refund(self) -> None:
        order_id = await self._order(self.buyer, "tok_ok", self.product_id)
        self.wishes.append(Wish(order_id, "CONFIRMED", refunded=100, owner=self.buyer.id))
        await self.shop.settled(self.buyer, order_id, status="CONFIRMED", seconds=PATIENCE)
        await patiently(
            self.shop, "POST", f"/v1/payments/pay_{order_id[4:]}/refunds", who=self.admin,
            json={"amount": {"amount": 100, "currency": "EUR"}}, headers={"idempotency-key": order_id},
            passing=(409,),
        )  # fmt: skip

    async def _watch(self) -> None:
        order_id = await self._order(self.buyer, "tok_ok", self.product_id)
        self.wishes.append(Wish(order_id, "CONFIRMED", owner=self.buyer.id))
        path = f"/v1/orders/{order_id}/stream"
        made = await patiently(self.shop, "POST", f"{path}-tickets", who=self.buyer)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):  # real clients would reconnect
            async with (
                asyncio.timeout(5),
                aiohttp.ClientSession(self.shop.base_url) as session,
                session.get(path, params={"ticket": made["ticket"]}) as stream,
            ):
                await stream.read()

    async def _life(self) -> None:
        """Register, change the password, log in again, order, and delete the account."""
        who = await register(self.shop, f"leaving.{uuid4().hex}@example.com")
        who = await self._new_password(who)
        await patiently(
            self.shop,
            "POST",
            "/v1/sessions/refresh",
            json={"refresh_token": who.tokens["refresh_token"]},
            done=(401,),
        )
        # If a response was lost, the repeated request ended the session and its tokens.
        who = await login(self.shop, who.email, who.password)
        order_id = await self._order(who, "tok_ok", self.product_id)
        self.wishes.append(Wish(order_id, "CANCELLED", refunded=PRICE, charged=False, owner=DELETED))
        await patiently(self.shop, "DELETE", "/v1/users/me", who=who, done=(401, 404))

    async def _new_password(self, who: Person) -> Person:
        fresh = f"Difference-{uuid4().hex[:12]}"
        change = {"current_password": who.password, "new_password": fresh}
        await patiently(self.shop, "PUT", "/v1/users/me/password", who=who, json=change, done=(401,))
        return await login(self.shop, who.email, fresh)

    async def _forgetful(self) -> None:
        """Verify an address, reset the password, and log in with the new one."""
        who = await register(self.shop, f"forgetful.{uuid4().hex}@example.com")
        self.customers.append(who)
        await self._answer_mail(who, VERIFY, {}, self._is_verified)
        who.password = f"Remembered-{uuid4().hex[:12]}"
        await self._answer_mail(who, RESET, {"new_password": who.password}, self._gets_in)

    async def _answer_mail(
        self,
        who: Person,
        mail: tuple[str, str, str],
        body: dict[str, str],
        done: Callable[[Person], Awaitable[bool]],
    ) -> None:
        """Request a mail, again if none arrives, and use its code; a new code invalidates the earlier ones."""
        subject, ask, answer = mail
        about = {"who": who} if mail == VERIFY else {"json": {"email": who.email}}
        async with asyncio.timeout(2 * PATIENCE):
            tried = ""
            while not tried or not await done(who):  # a lost response may have been a success
                with contextlib.suppress(Refused):  # too often: an earlier request's mail will arrive
                    await self.shop.patiently("POST", ask, seconds=5, **about)
                if code := await self._code(who.email, subject, but=tried):
                    proof = {"token": code, **body}
                    await patiently(self.shop, "POST", answer, json=proof, done=(400,))
                    tried = code
                else:
                    await self.platform.sweep()

    async def _moves(self) -> None:
        """Change the address of an account, then undo the change."""
        first, second = (f"{name}.{uuid4().hex}@example.com" for name in ("first", "second"))
        who = await register(self.shop, first)
        change = {"email": second, "current_password": who.password}
        wanted = {"who": who, "json": change}
        # A code that is never mailed is requested again; the code for the former address is mailed without a request.
        await self._use_code(second, MOVE, wanted, lambda: self._is_account(second, who.password))
        await self._use_code(first, MOVE_BACK, {}, lambda: self._is_nobodys(second, who.password))

    async def _use_code(
        self, email: str, mail: tuple[str, str], wanted: dict[str, Any], done: Callable[[], Awaitable[bool]]
    ) -> None:
        subject, answer = mail
        async with asyncio.timeout(2 * PATIENCE):
            tried = ""
            while not tried or not await done():  # a lost response may have been a success
                if wanted:
                    with contextlib.suppress(Refused):  # too often: an earlier request's mail will arrive
                        await self.shop.patiently("PATCH", "/v1/users/me", seconds=5, **wanted)
                if code := await self._code(email, subject, but=tried):
                    await patiently(self.shop, "POST", answer, json={"token": code}, done=(400, 409))
                    tried = code
                else:
                    await self.platform.sweep()

    async def _is_account(self, email: str, password: str) -> bool:
        keys = {"email": email, "password": password}
        return await patiently(self.shop, "POST", "/v1/sessions", json=keys, done=(401,)) is not None

    async def _is_nobodys(self, email: str, password: str) -> bool:
        return not await self._is_account(email, password)

    async def _code(self, email: str, subject: str, *, but: str) -> str:
        """Wait up to ten seconds for a code other than `but`; return the last one, or an empty string."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while self.mail.codes.get((email, subject), but) == but:  # noqa: ASYNC110 - only the server knows
                    await asyncio.sleep(0.1)
                return self.mail.codes[email, subject]
        return ""

    async def _is_verified(self, who: Person) -> bool:
        profile = await patiently(self.shop, "GET", "/v1/users/me", who=who)
        return bool(profile["email_verified"])

    async def _gets_in(self, who: Person) -> bool:
        keys = {"email": who.email, "password": who.password}
        tokens = await patiently(self.shop, "POST", "/v1/sessions", json=keys, done=(401,))
        who.tokens = tokens or who.tokens  # the tokens from before the reset are invalid
        return tokens is not None

    async def _join(self, email: str) -> None:
        self.customers.append(await register(self.shop, email))

    async def _write_to_nobody(self) -> None:
        """Register an account and delete it at once; messages to it must not reappear after that."""
        who = await register(self.shop, f"gone.{uuid4().hex}@example.com")
        await patiently(self.shop, "DELETE", "/v1/users/me", who=who, done=(401, 404))

    async def _new_product(self) -> None:
        product_id = await new_product(self.shop, self.admin, 5)
        await patiently(
            self.shop, "POST", f"/v1/products/{product_id}/stock/adjustments", who=self.admin,
            json={"delta": 2, "reason": "A delivery"}, headers={"idempotency-key": product_id}, passing=(409,),
        )  # fmt: skip

    async def _look_into_the_mailbox(self) -> None:
        await patiently(self.shop, "GET", "/v1/notifications", who=self.buyer)

    async def _logs_out(self) -> None:
        who = await register(self.shop, f"brief.{uuid4().hex}@example.com")
        given = {"refresh_token": who.tokens["refresh_token"]}
        await patiently(self.shop, "POST", "/v1/sessions/logout", json=given)

    async def _rotate_keys(self) -> None:
        """Rotate the signing keys.

        Only one rotation a minute is allowed, so a repetition after a lost response may be refused.
        """
        try:
            await self.shop.patiently("POST", "/v1/admin/keys/rotate", seconds=5, who=self.admin)
        except Refused as refused:
            if refused.status != 429:
                raise

    async def _poison(self) -> None:
        """Send an event that no handler can read: it becomes a dead letter, and does so again after a replay."""
        event_id = f"poison-{uuid4().hex}"
        self.poison.add(event_id)
        await publish(self.platform, event_id, b"{}")
        while not (letters := await self._letters(event_id)):  # noqa: ASYNC110 - only the broker knows when
            await asyncio.sleep(0.1)
        await patiently(
            self.shop,
            "POST",
            f"/v1/admin/dead-letters/{letters[0]['id']}/replay",
            who=self.admin,
            passing=(409,),
        )

    async def _letters(self, event_id: str) -> list[dict[str, Any]]:
        letters = await self.shop.all("/v1/admin/dead-letters", self.admin)
        return [letter for letter in letters if letter["event_id"] == event_id]


async def begin(shop: Shop, platform: Mortal, mail: MailServer) -> Round:
    """Return a new round with products and a buyer of its own."""
    admin = await login(shop, EMAIL, PASSWORD)
    product_id, sold_out_id = await new_product(shop, admin, PIECES), await new_product(shop, admin, 0)
    buyer = await register(shop, f"buyer.{uuid4().hex}@example.com")
    return Round(shop, platform, mail, admin, buyer, product_id, sold_out_id, customers=[buyer])
