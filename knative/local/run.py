"""One run of the platform: starts all parts, waits for a signal, and stops them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from knative.local import manifests, parts, ports, reload, seed, timers
from knative.local.data import Data
from knative.local.logs import LogTail
from knative.local.parts import GATEWAY, USERS, Part, Platform
from knative.local.supervisor import Child, PartFailed, Supervisor
from knative.local.terminal import Logs, Terminal

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Options:
    """Options of the command line. If `port_offset` is None, the parts use free ports."""

    data: Path
    manifests: Path
    fresh: bool = False
    reload: bool = False
    seed: bool = True
    port_offset: int | None = 0
    logs: Logs = "warn"
    store: Literal["sqlite", "postgres", "dynamodb"] = "sqlite"
    console: bool = False


@dataclass(frozen=True)
class Admin:
    """The first administrator. If `is_made_up` is true, the password was generated here and must be shown."""

    email: str
    password: str
    is_made_up: bool


class Run:
    """Starts, watches and stops the parts of one run."""

    def __init__(
        self,
        options: Options,
        data: Data,
        terminal: Terminal,
        shell: Mapping[str, str],
        launch: parts.Launch = parts.launch,
    ) -> None:
        self.options = options
        self._launch = launch
        self.data = data
        self.terminal = terminal
        self._ports = self._allot()
        ports.check(self._ports)
        self._admin = _first_admin(shell, data) if data.is_first_start else None
        self._shell = {**shell, "ADMIN_EMAIL": "", "ADMIN_PASSWORD": "", "PYTHONUNBUFFERED": "1"}
        self._platform = self._derive()
        self._is_ready = False
        self._interrupts = 0
        self._stopped = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._tail = LogTail(self._show_log)
        children = [Child(p, data.logs, ROOT, terminal, self._publish) for p in self._platform.parts]
        self.supervisor = Supervisor(children)

    async def main(self) -> int:
        """Start all parts, wait for a signal, stop all parts; return the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._interrupt)
        for child in self.supervisor.children:
            self._tail.follow(child.part.name, child.log)
        self._background(self._tail.run())
        try:
            return await self._until_interrupted()
        finally:
            await self._stop()

    async def _until_interrupted(self) -> int:
        started = time.monotonic()
        start = asyncio.create_task(self._start())
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait([start, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            start.cancel()
            return 0
        try:
            start.result()
        except (PartFailed, seed.SeedFailed, OSError) as error:
            self.terminal.line(self.terminal.paint(f"\nNot started: {error}", "bad"))
            return 1
        self._announce(time.monotonic() - started)
        await stopped
        return 0

    async def _start(self) -> None:
        await self.supervisor.start()
        if self._admin is not None:
            if self.options.seed:
                count = await asyncio.to_thread(seed.seed, self._url(GATEWAY), self._admin.email, self._admin.password)
                self.terminal.line(f"  Loaded the demo catalogue: {count} products.")
            self.data.mark_first_start_done()
        for tick in self._platform.ticks:
            self._background(timers.run(tick, lambda text: self.terminal.part("timer", text, "warn")))
        if self.options.reload:
            self._background(reload.watch(ROOT, self._reload))
        self._is_ready = True
        self._publish()

    def _announce(self, seconds: float) -> None:
        say, url = self.terminal.line, self._url(GATEWAY)
        say(self.terminal.paint(f"\nReady in {seconds:.1f} s", "good"))
        say(f"  API        {url}/v1")
        say(f"  Try it     {url}/docs")
        if self.options.console:
            say(f"  Watch it   {url}/console")
        if self._admin is not None:
            shown = f"{self._admin.password}   (shown this once)" if self._admin.is_made_up else "as in ADMIN_PASSWORD"
            say(f"  Admin      {self._admin.email}   password: {self.terminal.paint(shown, 'strong')}")
        else:
            say("  Admin      as at the first start (password lost? FRESH=1 starts anew, with another)")
        say(f"  Data, logs {self.data.folder}")
        say("Ctrl-C stops the platform.\n")

    async def _stop(self) -> None:
        self._is_ready = False
        self.terminal.line("\nStopping.")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.supervisor.stop()
        self._tail.catch_up()
        self.data.withdraw()
        self.terminal.line("Stopped.")

    def _interrupt(self) -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            self.terminal.line("Killing what still runs.")
            self.supervisor.kill()
        self._stopped.set()

    def _reload(self, changed: list[str]) -> None:
        if any(path.startswith(reload.MANIFESTS) for path in changed):
            try:
                self._apply_manifests()
            except manifests.ManifestError as error:
                self.terminal.line(self.terminal.paint(f"The manifests stay as they were: {error}", "bad"))
        self._restart(reload.affected(self._platform.parts, changed))

    def _apply_manifests(self) -> None:
        before = self._platform
        self._platform = self._derive()
        old = {part.name: part for part in before.parts}
        if old.keys() != {part.name for part in self._platform.parts} or before.ticks != self._platform.ticks:
            self.terminal.line("Services or PingSources were added or changed: stop and start again to run them.")
        is_routing_new = before.broker_config != self._platform.broker_config
        self._restart(
            [p for p in self._platform.parts if old.get(p.name) != p or (p.name == parts.BROKER and is_routing_new)]
        )

    def _restart(self, changed: list[Part]) -> None:
        by_name = {part.name: part for part in changed}
        for child in self.supervisor.children:
            if child.part.name in by_name:
                self.terminal.part(child.part.name, "changed: restarting")
                child.restart(by_name[child.part.name])

    def _derive(self) -> Platform:
        read = manifests.load(self.options.manifests)
        platform = parts.derive(read, self._ports, self.data.folder, self._shell, self._launch)
        if self.options.console:
            platform = parts.with_console(platform, self._ports, self.data.folder, self._shell, self._launch)
        for tick in platform.ticks:
            timers.check(tick)
        (self.data.folder / "broker.yaml").write_text(platform.broker_config)
        return replace(platform, parts=tuple(self._with_admin(part) for part in platform.parts))

    def _with_admin(self, part: Part) -> Part:
        if part.name != USERS or self._admin is None:
            return part
        env = {**part.env, "ADMIN_EMAIL": self._admin.email, "ADMIN_PASSWORD": self._admin.password}
        return replace(part, env=env)

    def _allot(self) -> ports.Ports:
        names = parts.domains(manifests.load(self.options.manifests))
        offset = self.options.port_offset
        return ports.free(names) if offset is None else ports.fixed(names, offset)

    def _url(self, name: str) -> str:
        return next(part.url for part in self._platform.parts if part.name == name)

    def _publish(self) -> None:
        running = {
            child.part.name: {
                "pid": child.process.pid if child.process else None,
                "url": child.part.url,
                "grpc": f"{ports.HOST}:{child.part.grpc}" if child.part.grpc else None,
                "ready": child.is_ready,
                "restarts": child.restarts,
                "log": str(child.log),
            }
            for child in self.supervisor.children
        }
        state = {"pid": os.getpid(), "ready": self._is_ready, "base_url": self._url(GATEWAY), "parts": running}
        self.data.publish(state)

    def _show_log(self, name: str, raw: bytes) -> None:
        logs = self.options.logs
        # While parts start and stop, they retry calls to each other and log warnings; the terminal omits those.
        self.terminal.log(name, raw, "error" if logs == "warn" and not self._is_ready else logs)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))


def _first_admin(shell: Mapping[str, str], data: Data) -> Admin:
    given = shell.get("ADMIN_PASSWORD", "")
    email = shell.get("ADMIN_EMAIL") or "admin@shop.local"
    return Admin(email, given or data.first_password(), is_made_up=not given)
