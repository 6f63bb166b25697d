"""Fakes of services that are scaled to zero, for tests of `gateway.prewarm`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager


class SleepingServices:
    """Servers that answer only once `may_answer` is set; `asked` and `seen` record the pings and responses in order."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.seen: list[str] = []
        self.may_answer = asyncio.Event()

    @asynccontextmanager
    async def open(self, *names: str) -> AsyncIterator[list[str]]:
        """Open a server for each name, and yield the addresses (host:port) in the order of the names."""
        async with AsyncExitStack() as all_of_them:
            places = []
            for name in names:
                server = await asyncio.start_server(self._door(name), "127.0.0.1", 0)
                await all_of_them.enter_async_context(server)
                places.append(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
            yield places

    def _door(self, name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.seen.append(name)
            self.asked.put_nowait(name)
            await self.may_answer.wait()
            self.seen.append(f"{name} answered")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            writer.close()

        return answer
