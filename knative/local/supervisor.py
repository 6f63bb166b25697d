"""Start the parts in order, restart those that end, and stop them in order."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from knative.local import web
from knative.local.logs import last_lines, open_log
from knative.local.parts import READY_SECONDS, Part
from knative.local.ports import HOST
from knative.local.terminal import Terminal, readable

READY_PATH: Final = "/healthz/ready"
STEADY_SECONDS: Final = 10.0  # the backoff of a part that ran for longer is reset
BACKOFF_SECONDS: Final = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
STOP_SECONDS: Final = 15.0  # parts drain for up to 10 s
FIRST_TRIES: Final = 3
_BACKLOG: Final = 2048  # connections that wait while a part restarts


class PartFailed(RuntimeError):
    """A part did not become ready at the platform's start."""


class Child:
    """The process of one part, which is restarted when it ends. Calls `changed` when its pid or readiness changes."""

    def __init__(
        self,
        part: Part,
        logs: Path,
        cwd: Path,
        terminal: Terminal,
        changed: Callable[[], None],
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self.part = part
        self.log = logs / f"{part.name}.log"
        self.restarts = 0
        self.is_ready = False
        self.process: asyncio.subprocess.Process | None = None
        self._cwd = cwd
        self._terminal = terminal
        self._changed = changed
        self._stop_seconds = stop_seconds
        self._stopping = asyncio.Event()
        self._restart_asked = False
        self._wake = asyncio.Event()  # ends a wait between two starts
        self._settled = asyncio.Event()  # the part is ready for the first time, or was given up
        self._keeper: asyncio.Task[None] | None = None
        self._listening: socket.socket | None = None

    def start(self) -> None:
        """Start the process and keep it running."""
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.part.name}")

    async def until_ready(self) -> None:
        """Wait until the part is ready for the first time.

        Raises PartFailed after READY_SECONDS, or after FIRST_TRIES failed starts.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                await self._settled.wait()
        if not self.is_ready and not self._stopping.is_set():
            lines = "\n".join(f"    {readable(line)[1]}" for line in last_lines(self.log, 12))
            raise PartFailed(f"{self.part.name} does not become ready. The end of {self.log}:\n{lines}")

    def restart(self, part: Part | None = None) -> None:
        """Restart the process without a backoff, with the new definition if `part` is given."""
        self.part = part or self.part
        self._restart_asked = True
        self._wake.set()
        self._signal(signal.SIGTERM)

    async def stop(self) -> None:
        """Send SIGTERM; if the process still runs after `stop_seconds`, send SIGKILL."""
        self._stopping.set()
        self._settled.set()
        self._wake.set()
        self._signal(signal.SIGTERM)
        if self._keeper is None:
            return
        self._close_listening()
        done, _ = await asyncio.wait([self._keeper], timeout=self._stop_seconds)
        if not done:
            self._terminal.part(self.part.name, f"does not stop within {self._stop_seconds:g} s: killed", "warn")
            self.kill()
            await self._keeper

    def kill(self) -> None:
        """Send SIGKILL to the part and its children."""
        self._stopping.set()
        self._wake.set()
        self._close_listening()
        self._signal(signal.SIGKILL)

    async def _keep(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            self._restart_asked = False
            self._wake.clear()
            await self._spawn()
            code = await self._run_once(started)
            if self._stopping.is_set():
                return
            if self._restart_asked:
                self.restarts += 1
                continue
            failures = 1 if time.monotonic() - started > STEADY_SECONDS else failures + 1
            if failures >= FIRST_TRIES and not self._settled.is_set():
                self._settled.set()
                return
            await self._back_off(code, failures)

    async def _run_once(self, started: float) -> int:
        assert self.process is not None  # noqa: S101 - for the type checker: spawned just before
        watcher = asyncio.create_task(self._watch_readiness(started))
        code = await self.process.wait()
        watcher.cancel()
        self.is_ready = False
        # Also end the processes that the part has started.
        self._signal_group(self.process.pid, signal.SIGKILL)
        return code

    async def _back_off(self, code: int, failures: int) -> None:
        delay = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._terminal.part(self.part.name, f"ended ({reason}); starts again in {delay:g} s", "bad")
        self.restarts += 1
        self._changed()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), delay)

    async def _spawn(self) -> None:
        log = open_log(self.log)
        env = dict(self.part.env)
        handed: tuple[int, ...] = ()
        if self.part.is_held:
            self._listening = self._listening or socket.create_server((HOST, self.part.http), backlog=_BACKLOG)
            handed = (self._listening.fileno(),)
            env["HTTP_FD"] = str(self._listening.fileno())
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.part.command,
                cwd=self._cwd,
                env=env,
                pass_fds=handed,
                stdin=subprocess.PIPE,  # never written to; when the runner ends, it closes and so ends the part
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must reach only the runner, which stops the parts in order
            )
        finally:
            os.close(log)
        self._changed()

    async def _watch_readiness(self, started: float) -> None:
        while not await web.answers(HOST, self.part.http, READY_PATH):  # noqa: ASYNC110 - only a request shows readiness
            await asyncio.sleep(0.03)
        self.is_ready = True
        self._settled.set()
        again = " again" if self.restarts else ""
        self._terminal.part(self.part.name, f"{self._where()} ready{again} in {time.monotonic() - started:.1f} s")
        self._changed()

    def _close_listening(self) -> None:
        if self._listening is not None:
            self._listening.close()

    def _where(self) -> str:
        grpc = f"gRPC {HOST}:{self.part.grpc}" if self.part.grpc else ""
        return f"{self.part.url:<22} {grpc:<21}"

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None or self.process.returncode is not None:
            return
        # The process's own methods are not used: they poll for its end, which may take the exit code from asyncio.
        if number == signal.SIGKILL:
            self._signal_group(self.process.pid, number)
        else:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    @staticmethod
    def _signal_group(pid: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)


class Supervisor:
    """Starts and stops all children in the order that their parts define."""

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = tuple(children)

    async def start(self) -> None:
        """Start all parts; return when all are ready. Raises PartFailed."""
        for stage in self._in_order(lambda part: part.starts):
            for child in stage:
                child.start()
            await asyncio.gather(*(child.until_ready() for child in stage))

    async def stop(self) -> None:
        """Stop all parts in order.

        The gateway stops first, so that no requests reach stopping services. The broker stops after the services,
        because they still publish events.
        """
        for stage in self._in_order(lambda part: part.ends):
            await asyncio.gather(*(child.stop() for child in stage))

    def kill(self) -> None:
        """Kill all parts."""
        for child in self.children:
            child.kill()

    def _in_order(self, number: Callable[[Part], int]) -> list[list[Child]]:
        numbers = sorted({number(child.part) for child in self.children})
        return [[child for child in self.children if number(child.part) == n] for n in numbers]
