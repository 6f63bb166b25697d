"""Prewarming of the services that an order needs, when an order is placed."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PAUSE = 30.0
"""Minimum seconds between two pings of a service. A service that was pinged stays up for longer than that."""


class PrewarmMiddleware:
    """Pings the services that an order needs, so that they start early.

    `wake` lists them as host:port, separated by commas, in two groups separated by a semicolon. The first group serves
    an order's request and is pinged when it arrives. The second handles the order's events and is pinged once the order
    is accepted. Each group is pinged at most once in 30 seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        wake: str,
        ping: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        needed, _, following = wake.partition(";")
        self._needed, self._following = needed, following.replace(";", ",")
        self._ping = ping
        self._clock = clock
        self._pinged: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, with pings around the request if it places an order."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != "/v1/orders":
            await self._app(scope, receive, send)
            return
        accepted = False

        async def watched(message: Message) -> None:
            nonlocal accepted
            if message["type"] == "http.response.start":
                accepted = message["status"] < 400
            await send(message)

        self._wake(self._needed)
        await self._app(scope, receive, watched)
        if accepted:
            self._wake(self._following)

    def _wake(self, addresses: str) -> None:
        now = self._clock()
        if addresses and now - self._pinged.get(addresses, -_PAUSE) >= _PAUSE:
            self._pinged[addresses] = now
            self._ping(addresses)
