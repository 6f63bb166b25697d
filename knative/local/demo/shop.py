"""A client of the public API that acts like a shop's front end; the demo, end-to-end tests and benchmarks use it."""

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
"""The states that an order leaves only when a person acts on it."""
_PASSING = frozenset({429, 502, 503, 504})
_PAUSE = 0.2  # seconds before the next attempt, if the response has no Retry-After
_LONGEST_PAUSE = 1.0  # maximum seconds between two requests for an order


class Refused(Exception):
    """The API returned an error with `status`. `problem` contains the members of the problem document.

    After `retry_after` seconds the client may try again.
    """

    def __init__(self, method: str, path: str, status: int, problem: Mapping[str, Any], retry_after: float) -> None:
        super().__init__(f"{method} {path}: {status} {problem.get('reason')}: {problem.get('detail')}")
        self.status = status
        self.problem = problem
        self.reason = problem.get("reason")
        self.retry_after = retry_after


class Person:
    """A user with a session. Requests that are given this person carry the session's access token."""

    def __init__(self, email: str, password: str, profile: Mapping[str, Any], tokens: Mapping[str, Any]) -> None:
        self.email = email
        self.password = password
        self.profile = profile
        self.tokens = tokens

    @property
    def id(self) -> str:
        """Return the user id."""
        return str(self.profile["id"])


class Shop:
    """A client of the API at `base_url`; `host` overrides the Host header, to reach an ingress by its IP address.

    All methods but `raw` raise Refused for a status of 400 or more. All raise OSError or aiohttp.ClientError if there
    is no response.
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
        """Close the connection pool."""
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
        """Send one request; return status, decoded JSON (or text) and headers of the response.

        `body` is aiohttp's `json` or `data`.
        """
        sent = dict(headers or {})
        if who is not None:
            sent["authorization"] = f"Bearer {who.tokens['access_token']}"
        async with self._session.request(method, self.base_url + path, headers=sent, **body) as answer:
            is_json = answer.content_type.endswith("json")
            content = await answer.json(content_type=None) if is_json else await answer.text()
            return answer.status, content, answer.headers

    async def call(self, method: str, path: str, **how: Any) -> Any:
        """Send one request; return the decoded body of the response."""
        status, content, headers = await self.raw(method, path, **how)
        if status >= 400:
            problem = content if isinstance(content, dict) else {"detail": content}
            named = retry_after(headers.get("Retry-After", ""), time.time())
            raise Refused(method, path, status, problem, named or _PAUSE)
        return content

    async def patiently(self, method: str, path: str, *, seconds: float = 60.0, **how: Any) -> Any:
        """Send a request as `call` does, and repeat it for up to `seconds` while the failure is temporary.

        Before a repetition it waits as long as the response's Retry-After says. Use it only for idempotent requests.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return await self.call(method, path, **how)
            except (Refused, aiohttp.ClientError, OSError) as error:
                passing = not isinstance(error, Refused) or error.status in _PASSING
                if not passing or time.monotonic() > deadline:
                    raise
                pause = error.retry_after if isinstance(error, Refused) else _PAUSE
                pause *= random.uniform(1, 1.5)  # so that refused clients do not all retry at the same time
                await asyncio.sleep(min(pause, max(deadline - time.monotonic(), _PAUSE)))

    async def register(self, name: str = "Ada Lovelace") -> Person:
        """Register a new customer and log in."""
        email, password = f"ada.{uuid4().hex}@example.com", f"Analytical-{uuid4().hex[:12]}"
        profile = await self.call("POST", "/v1/users", json={"email": email, "password": password, "name": name})
        return await self.login(email, password, profile)

    async def login(self, email: str, password: str, profile: Mapping[str, Any] | None = None) -> Person:
        """Log in as an existing person; return the person with a new session."""
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
        """Place an order of `lines` (quantity by product id), if its total is `expected_total` (None: any total).

        Calls with the same idempotency `key` place the order only once.
        """
        body = {
            "lines": [{"product_id": product, "quantity": quantity} for product, quantity in lines.items()],
            "shipping_address": ADDRESS,
            "payment_token": token,
            **({"expected_total": expected_total} if expected_total else {}),
        }
        headers = {"idempotency-key": key or uuid4().hex}
        placed: dict[str, Any] = await self.patiently("POST", "/v1/orders", who=who, json=body, headers=headers)
        return placed

    async def settled(self, who: Person, order_id: str, *, status: str = "", seconds: float = 30.0) -> dict[str, Any]:
        """Wait until the order is in one of the FINAL states, or in `status` if that is given; return the order.

        Raises TimeoutError, which names the order's state, after `seconds`.
        """
        deadline, pause = time.monotonic() + seconds, 0.05
        while True:
            order: dict[str, Any] = await self.patiently("GET", f"/v1/orders/{order_id}", who=who)
            if order["status"] == status or (not status and order["status"] in FINAL):
                return order
            if time.monotonic() > deadline:
                raise TimeoutError(f"{order_id} is still {order['status']} after {seconds:.0f} s")
            await asyncio.sleep(pause)
            # Frequent requests of many clients would slow the orders down.
            pause = min(pause * 1.4, _LONGEST_PAUSE)

    async def payment(self, who: Person, order_id: str) -> dict[str, Any] | None:
        """Return the order's payment, or None if no payment was tried."""
        try:
            found: dict[str, Any] = await self.patiently("GET", f"/v1/orders/{order_id}/payment", who=who)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return found

    async def stock(self, product_id: str) -> dict[str, Any]:
        """Return the product's stock: on_hand, reserved and available."""
        found: dict[str, Any] = await self.patiently("GET", f"/v1/products/{product_id}/stock")
        return found

    async def all(self, path: str, who: Person | None = None) -> list[dict[str, Any]]:
        """Return all items of a paginated list."""
        items: list[dict[str, Any]] = []
        separator, cursor = "&" if "?" in path else "?", ""
        while True:
            page = await self.patiently("GET", f"{path}{separator}limit=100{cursor}", who=who)
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = f"&cursor={page['next_cursor']}"
