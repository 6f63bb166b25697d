"""Clients of other domains that call the use cases in this process, and a fake mail channel; each can be `down`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from functions.notifications.channels.port import Bounced, Mail
from functions.notifications.clients import Contact, MailedCode
from functions.orders.pricing import Offer
from functions.orders.service import OrdersService
from functions.payments.clients import Instruction
from functions.products.service import ProductsService
from functions.runtime.errors import Code, ServiceError, unavailable
from functions.runtime.identity import SERVICE, Identity
from functions.users.auth.challenges import Purpose
from functions.users.auth.recovery import IssueMailedToken
from functions.users.bootstrap import Services as UsersServices
from functions.users.service import GetContacts


def service_identity(name: str) -> Identity:
    """Return the identity of a service."""
    return Identity(name, frozenset({SERVICE}))


class InProcessClient:
    """Calls another domain's use cases directly; while `down`, calls fail."""

    def __init__(self) -> None:
        self.down = False

    async def _reach(self) -> None:
        await asyncio.sleep(0)  # let other tasks run, as during a real call
        if self.down:
            raise unavailable("PEER_UNAVAILABLE", "The service does not answer.")


class InProcessProducts(InProcessClient):
    """The client of products in orders."""

    def __init__(self, products: ProductsService) -> None:
        super().__init__()
        self._products = products

    async def offers(self, product_ids: Sequence[str]) -> dict[str, Offer]:
        await self._reach()
        found = await self._products.get_many(product_ids, service_identity("orders"))
        return {p.id: Offer(p.id, p.sku, p.name, p.price, p.active) for p in found}

    async def on_hand(self, product_ids: Sequence[str]) -> dict[str, int]:
        """See functions.orders.clients.Catalogue. No order here is within reach of a limit."""
        raise NotImplementedError


class InProcessOrders(InProcessClient):
    """The client of orders in payments."""

    def __init__(self, orders: OrdersService) -> None:
        super().__init__()
        self._orders = orders

    async def payment_instruction(self, order_id: str) -> Instruction:
        await self._reach()
        order = await self._orders.get_payment_instruction(order_id, service_identity("payments"))
        return Instruction(order.id, order.user_id, order.total, order.payable, order.payment_token)


class InProcessUsers(InProcessClient):
    """The client of users in notifications."""

    def __init__(self, accounts: UsersServices) -> None:
        super().__init__()
        self._accounts = accounts

    async def contact(self, user_id: str) -> Contact | None:
        return next(iter(await self._ask([user_id])), None)

    async def administrators(self) -> list[str]:
        return [contact.user_id for contact in await self._ask([], admins=True)]

    async def mailed_token(self, user_id: str, purpose: str, change_id: str = "") -> MailedCode | None:
        await self._reach()
        command = IssueMailedToken(user_id, Purpose(purpose), change_id)
        try:
            code = await self._accounts.recovery.issue_mailed_token(command, service_identity("notifications"))
        except ServiceError as error:
            assert error.code is Code.NOT_FOUND  # noqa: PT017 - as the real one
            return None
        return MailedCode(code.token, code.email)

    async def _ask(self, user_ids: Sequence[str], *, admins: bool = False) -> list[Contact]:
        await self._reach()
        found = await self._accounts.users.get_contacts(
            GetContacts(user_ids, admins), service_identity("notifications")
        )
        return [Contact(user.id, user.email, user.name, user.email_deliverable) for user in found]


class FakeMailChannel:
    """A mail channel that keeps the ids of sent notifications, and bounces mail to addresses in `dead`."""

    name = "smtp"
    needs_address = True

    def __init__(self) -> None:
        self.down = False
        self.dead: set[str] = set()
        self.sent: list[str] = []

    async def send(self, mail: Mail) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise unavailable("MAIL_UNAVAILABLE", "No mail goes out.")
        if mail.address in self.dead:
            raise Bounced
        self.sent.append(mail.id)
