"""Children: restarted on request, given another definition, stopped in order."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from knative.local import ports, web
from knative.local.parts import Part
from knative.local.supervisor import Child, PartFailed, Supervisor
from knative.local.terminal import Terminal

ROOT = Path(__file__).parents[3]


def fake(name: str, ends: int = 1, **env: str) -> Part:
    port = ports.free([]).http["gateway"]
    command = (sys.executable, "-m", "knative.local.launch", "knative.local.tests.fake_part")
    return Part(name, command, {**os.environ, "HTTP_PORT": str(port), **env}, port, ends=ends)


class Stage:
    """Children of fakes, and what was said of them."""

    def __init__(self, folder: Path) -> None:
        self.said = io.StringIO()
        self.folder = folder

    def child(self, part: Part, stop_seconds: float = 15.0) -> Child:
        return Child(part, self.folder, ROOT, Terminal(self.said), lambda: None, stop_seconds)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.02)


async def test_a_changed_part_comes_back_with_its_new_definition(stage: Stage) -> None:
    part = fake("hats", ANSWER="old")
    child = stage.child(part)
    supervisor = Supervisor([child])
    await supervisor.start()
    assert (await asyncio.to_thread(web.request, "GET", part.url))[2] == b"old"
    child.restart(replace(part, env={**part.env, "ANSWER": "new"}))
    await until(lambda: child.restarts == 1 and child.is_ready)
    _, _, answer = await asyncio.to_thread(web.request, "GET", part.url)
    assert answer == b"new"
    assert "ended" not in stage.said.getvalue(), "a restart that was asked for is no failure"
    await supervisor.stop()


async def test_a_change_ends_the_wait_of_a_part_that_kept_dying(stage: Stage) -> None:
    part = fake("hats")
    child = stage.child(part)
    supervisor = Supervisor([child])
    await supervisor.start()
    broken = replace(part, command=(sys.executable, "-c", "raise SystemExit(9)"))
    child.restart(broken)
    await until(lambda: "starts again in 2 s" in stage.said.getvalue())
    child.restart(part)
    async with asyncio.timeout(1.9):
        await until(lambda: child.is_ready)
    await supervisor.stop()


async def test_backoff_grows_with_each_failure(stage: Stage) -> None:
    child = stage.child(replace(fake("hats"), command=(sys.executable, "-c", "raise SystemExit(9)")))
    child.start()
    with pytest.raises(PartFailed, match="hats does not become ready"):
        await child.until_ready()
    said = stage.said.getvalue()
    assert said.index("(exit code 9); starts again in 0.25 s") < said.index("starts again in 0.5 s")
    await child.stop()


async def test_parts_stop_in_their_order(stage: Stage, tmp_path: Path) -> None:
    order = tmp_path / "order"
    env = {"LAST_WORDS": str(order)}
    parts = [fake("broker", 2, **env), fake("orders", 1, **env), fake("gateway", 0, **env)]
    supervisor = Supervisor(
        [stage.child(replace(p, env={**p.env, "NAME": p.name})) for p in parts],
    )
    await supervisor.start()
    await supervisor.stop()
    assert order.read_text().split() == ["gateway", "orders", "broker"]


async def test_a_part_that_does_not_stop_is_killed_with_its_children(
    stage: Stage,
) -> None:
    child = stage.child(fake("hats", STUBBORN="yes"), stop_seconds=0.2)
    supervisor = Supervisor([child])
    await supervisor.start()
    process = child.process
    await supervisor.stop()
    assert process is not None
    assert process.returncode == -signal.SIGKILL
    assert "killed" in stage.said.getvalue()


async def test_how_a_killed_part_ended_is_known_every_time(stage: Stage) -> None:
    part = replace(fake("hats"), command=("sleep", "60"))

    async def killed() -> int:
        child = stage.child(part)
        child.start()
        await until(lambda: child.process is not None)
        assert child.process is not None
        child.kill()
        code = await child.process.wait()
        await child.stop()
        return code

    # Who asks for the exit code first is a race: once would say little.
    assert {await killed() for _ in range(100)} == {-signal.SIGKILL}


async def test_who_connects_while_a_held_part_is_dead_waits_for_the_next_one(stage: Stage) -> None:
    child = stage.child(replace(fake("held"), is_held=True))
    supervisor = Supervisor([child])
    await supervisor.start()
    with suppress(OSError):
        await asyncio.to_thread(web.request, "GET", f"{child.part.url}/die")
    assert (await asyncio.to_thread(web.request, "GET", child.part.url))[0] == 200
    assert child.restarts == 1
    await supervisor.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(web.request, "GET", child.part.url)
