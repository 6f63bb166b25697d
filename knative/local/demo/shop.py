"""A client of the public API, as a shop's front end would be one: for the demo, the end-to-end tests and the
bench.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import aiohttp

from observability.headers import retry_after

ADDRESS = {
    "name": "Ada Lovelace",
    "line1": "12 St James's Square",
    "line2": "",
    "city": "London",
    "postal_code": "SW1Y 4JH",
    "country": "GB",
}
FINAL = frozenset({"CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED"})
"""Where an order stands still until a person moves it."""
_PASSING = frozenset({429, 502, 503, 504})
_PAUSE = 0.2  # seconds before the next attempt, where the answer does not say
_LONGEST_PAUSE = 1.0  # seconds between two looks at an order


class Refused(Exception):
    """The API answered with a problem document: `status`, the document's members in `problem`, and after how many
    seconds it may be asked again.
    """

    def __init__(
        self, method: str, path: str, status: int, problem: Mapping[str, Any], retry_after: float
    ) -> None:
        super().__init__(f"{method} {path}: {status} {problem.get('reason')}: {problem.get('detail')}")
        self.status = status
        self.problem = problem
        self.reason = problem.get("reason")
        self.retry_after = retry_after


class Person:
    """Somebody with a session: the token goes with every request made as them."""

    def __init__(
        self, email: str, password: str, profile: Mapping[str, Any], tokens: Mapping[str, Any]
    ) -> None:
        self.email = email
        self.password = password
        self.profile = profile
        self.tokens = tokens

    @property
    def id(self) -> str:
        """The user id."""
        return str(self.profile["id"])


class Shop:
    """The API at `base_url`; `host` overrides the Host header, for an ingress reached by its address.

    Methods raise Refused for an answer of 400 or more, and OSError or aiohttp.ClientError where nobody
    answers.
    """

    def __init__(self, base_url: str, host: str = "", connections: int = 100) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {"host": host} if host else {}
        self._connections = connections

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=30),
            headers=self._headers,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self._session.close()

    async def raw(
        self,
        method: str,
        path: str,
        *,
        who: Person | None = None,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, decoded JSON (or text) and headers of one request; `json` or `data` as aiohttp takes them."""
        sent = dict(headers or {})
        if who is not None:
            sent["authorization"] = f"Bearer {who.tokens['access_token']}"
        async with self._session.request(method, self.base_url + path, headers=sent, **body) as answer:
            is_json = answer.content_type.endswith("json")
            content = await answer.json(content_type=None) if is_json else await answer.text()
            return answer.status, content, answer.headers

    async def call(self, method: str, path: str, **how: Any) -> Any:
        """The decoded answer of one request."""
        status, content, headers = await self.raw(method, path, **how)
        if status >= 400:
            problem = content if isinstance(content, dict) else {"detail": content}
            named = retry_after(headers.get("Retry-After", ""), time.time())
            raise Refused(method, path, status, problem, named or _PAUSE)
        return content

    async def patiently(self, method: str, path: str, *, seconds: float = 60.0, **how: Any) -> Any:
        """`call`, repeated while the platform says that it cannot just now, as it says: only for what is idempotent."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return await self.call(method, path, **how)
            except (Refused, aiohttp.ClientError, OSError) as error:
                passing = not isinstance(error, Refused) or error.status in _PASSING
                if not passing or time.monotonic() > deadline:
                    raise
                pause = error.retry_after if isinstance(error, Refused) else _PAUSE
                pause *= random.uniform(1, 1.5)  # not all who were refused at once
                await asyncio.sleep(min(pause, max(deadline - time.monotonic(), _PAUSE)))

    async def register(self, name: str = "Ada Lovelace") -> Person:
        """A new customer, logged in."""
        email, password = f"ada.{uuid4().hex}@example.com", f"Analytical-{uuid4().hex[:12]}"
        profile = await self.call(
            "POST", "/v1/users", json={"email": email, "password": password, "name": name}
        )
        return await self.login(email, password, profile)

    async def login(self, email: str, password: str, profile: Mapping[str, Any] | None = None) -> Person:
        """An existing person with a new session."""
        tokens = await self.call("POST", "/v1/sessions", json={"email": email, "password": password})
        person = Person(email, password, profile or {}, tokens)
        if profile is None:
            person.profile = await self.call("GET", "/v1/users/me", who=person)
        return person

    async def order(
        self,
        who: Person,
        lines: Mapping[str, int],
        token: str = "tok_ok",  # noqa: S107 - a test token
        key: str | None = None,
        expected_total: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Place an order of `lines` (quantity by product id), if it costs `expected_total`; a `key` places it once."""
        body = {
            "lines": [{"product_id": product, "quantity": quantity} for product, quantity in lines.items()],
            "shipping_address": ADDRESS,
            "payment_token": token,
            **({"expected_total": expected_total} if expected_total else {}),
        }
        headers = {"idempotency-key": key or uuid4().hex}
        placed: dict[str, Any] = await self.patiently(
            "POST", "/v1/orders", who=who, json=body, headers=headers
        )
        return placed

    async def settled(
        self, who: Person, order_id: str, *, status: str = "", seconds: float = 30.0
    ) -> dict[str, Any]:
        """The order once it stands still (or has `status`); raises TimeoutError with where it was left."""
        deadline, pause = time.monotonic() + seconds, 0.05
        while True:
            order: dict[str, Any] = await self.patiently("GET", f"/v1/orders/{order_id}", who=who)
            if order["status"] == status or (not status and order["status"] in FINAL):
                return order
            if time.monotonic() > deadline:
                raise TimeoutError(f"{order_id} is still {order['status']} after {seconds:.0f} s")
            await asyncio.sleep(pause)
            pause = min(pause * 1.4, _LONGEST_PAUSE)  # many who ask often would slow what they wait for

    async def payment(self, who: Person, order_id: str) -> dict[str, Any] | None:
        """The order's payment, or None when nothing was tried."""
        try:
            found: dict[str, Any] = await self.patiently("GET", f"/v1/orders/{order_id}/payment", who=who)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return found

    async def stock(self, product_id: str) -> dict[str, Any]:
        """on_hand, reserved, available."""
        found: dict[str, Any] = await self.patiently("GET", f"/v1/products/{product_id}/stock")
        return found

    async def all(self, path: str, who: Person | None = None) -> list[dict[str, Any]]:
        """Every item of a list, page by page."""
        items: list[dict[str, Any]] = []
        separator, cursor = "&" if "?" in path else "?", ""
        while True:
            page = await self.patiently("GET", f"{path}{separator}limit=100{cursor}", who=who)
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = f"&cursor={page['next_cursor']}"
