"""uvicorn inside a loop of ours: it leaves signals alone, and begins and ends when told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, which would raise a signal again at its end: the process has its own."""

    _task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def begin(self, listening: socket.socket) -> None:
        """Serve in the background; returns once requests are taken."""
        self._task = asyncio.create_task(self.serve(sockets=[listening]))
        while not self.started:
            if self._task.done():
                await self._task
            await asyncio.sleep(0.001)

    async def end(self) -> None:
        """Take no more requests; those under way get the configured time."""
        self.should_exit = True
        if self._task is not None:
            await self._task


def bind(host: str, port: int) -> socket.socket:
    """A listening address, IPv4 or IPv6, port 0 for any free one. Raises OSError when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)
