"""A platform whose parts can be armed to die at a failpoint; the supervisor of `make up` runs in the test's loop."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import yaml

from knative.local import manifests, parts, ports, timers, web
from knative.local.data import Data
from knative.local.supervisor import Child, Supervisor
from knative.local.terminal import Terminal
from observability.failpoints import REACHED, VARIABLE
from tests.crash.points import BROKER, GATEWAY, ROOT, Shot
from tests.e2e.platform import NO_VELOCITY

EMAIL, PASSWORD = "admin@shop.test", "crash-test-administrator"
SETTLE_SECONDS = 1
READY_SECONDS = 60.0
_SAMPLE = re.compile(r"^(\w+?)(?:_total)?(?:\{.*\})? ([0-9.e+-]+)$", re.MULTILINE)


class Mortal:
    """The running platform: its parts, and the supervisor that restarts them."""

    def __init__(self, platform: parts.Platform, data: Data, terminal: Terminal) -> None:
        self.ticks = platform.ticks
        self.data = data
        self._plain = {part.name: part for part in platform.parts}
        self.children = {part.name: Child(part, data.logs, ROOT, terminal, lambda: None) for part in platform.parts}
        self.supervisor = Supervisor(list(self.children.values()))
        self.domains = [name for name in self.children if name not in (BROKER, GATEWAY)]

    def url(self, part: str) -> str:
        """Return the HTTP URL of a part."""
        return self._plain[part].url

    def arm(self, shot: Shot, nth: int) -> Armed:
        """Restart a part so that it dies when it reaches a failpoint for the nth time."""
        child, plain = self.children[shot.part], self._plain[shot.part]
        mark = child.log.stat().st_size
        child.restart(replace(plain, env={**plain.env, VARIABLE: f"{shot.point}:{nth}"}))
        return Armed(shot, child, plain, mark)

    async def ready(self) -> None:
        """Wait until all parts are ready."""
        deadline = time.monotonic() + READY_SECONDS
        while not all(child.is_ready for child in self.children.values()):
            assert time.monotonic() < deadline, [n for n, c in self.children.items() if not c.is_ready]
            await asyncio.sleep(0.02)

    async def sweep(self) -> None:
        """Send all timer events, as the PingSources do every few minutes."""
        for tick in self.ticks:
            await timers.send(tick)

    async def sample(self, part: str, metric: str) -> float:
        """Return the sum of a part's metric over all labels; the metric must exist."""
        _, _, body = await asyncio.to_thread(web.request, "GET", f"{self.url(part)}/metrics")
        values = [float(value) for name, value in _SAMPLE.findall(body.decode()) if name == metric]
        assert values, f"{part} has no metric {metric}"
        return sum(values)

    def output(self) -> str:
        """Return the end of each part's log."""
        return "\n".join(
            f"{name}: {child.log.read_bytes()[-2000:].decode(errors='replace')}"
            for name, child in self.children.items()
        )


class Armed:
    """A part that is armed to die at a failpoint."""

    def __init__(self, shot: Shot, child: Child, plain: parts.Part, mark: int) -> None:
        self.shot = shot
        self._child = child
        self._plain = plain
        self._mark = mark

    @property
    def died(self) -> bool:
        """Return whether the part died at its failpoint."""
        with self._child.log.open("rb") as log:
            log.seek(self._mark)
            return f"{REACHED}{self.shot.point}\n".encode() in log.read()

    async def buried(self, seconds: float) -> bool:
        """Wait at most `seconds` for the part's death, and restart it unarmed. Returns whether it died."""
        deadline = time.monotonic() + seconds
        while not self.died and time.monotonic() < deadline:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.02)
        died = self.died
        assert self._child.process is not None
        dead = self._child.process.pid
        self._child.restart(self._plain)
        while self._child.process.pid == dead:  # noqa: ASYNC110 - and so is its successor
            await asyncio.sleep(0.02)
        return died


def _persistent(broker_config: str) -> str:
    """Return the broker's configuration with enough retries for parts that start slowly on a busy machine.

    So the only dead letters are those that the test causes.
    """
    documents = list(yaml.safe_load_all(broker_config))
    for document in documents:
        if document["kind"] == "Trigger":
            document["spec"]["delivery"] |= {"retry": 50, "backoffPolicy": "linear", "backoffDelay": "PT0.1S"}
    return yaml.safe_dump_all(documents)


@asynccontextmanager
async def mortal(folder: Path, environ: Mapping[str, str]) -> AsyncIterator[Mortal]:
    """Start a platform with its data in `folder`; every part gets the variables in `environ`."""
    data = Data(folder)
    data.hold()
    read = manifests.load(ROOT / "knative" / "base")
    data.prepare(parts.callers(read))
    shell = {
        **os.environ,
        **NO_VELOCITY,
        **environ,
        "ADMIN_EMAIL": EMAIL,
        "ADMIN_PASSWORD": PASSWORD,
        "LOG_LEVEL": "INFO",
    }
    derived = parts.derive(read, ports.free(parts.domains(read)), data.folder, shell)
    (data.folder / "broker.yaml").write_text(_persistent(derived.broker_config))
    with (folder / "runner.out").open("w") as out:
        platform = Mortal(derived, data, Terminal(out))
        try:
            await platform.supervisor.start()
            yield platform
        finally:
            await platform.supervisor.stop()
