"""A small platform for the tests: manifests of two fake domains, run through the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from knative.local import web
from knative.local.data import is_part

ROOT = Path(__file__).parents[3]


class PlatformProcess:
    """One platform of fakes with its own folder, started as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.output = folder / "output.txt"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str, **env: str) -> subprocess.Popen[bytes]:
        """Starts the platform; its output goes to a file, so it is no terminal."""
        arguments = ["--data", str(self.data), "--no-seed", "--no-console", *(options or ("--ports", "free"))]
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "knative.local.tests.fake_platform", *arguments],
                cwd=ROOT,
                env={**os.environ, **env},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def start_ready(self, *options: str, **env: str) -> subprocess.Popen[bytes]:
        """Starts the platform and waits until it says that it is ready."""
        process = self.start(*options, **env)
        eventually(lambda: self.state().get("ready") or process.poll() is not None, self.text)
        assert process.poll() is None, self.text()
        return process

    def state(self) -> dict[str, Any]:
        """platform.json."""
        try:
            state: dict[str, Any] = json.loads((self.data / "platform.json").read_text())
        except OSError:
            return {}
        return state

    def pids(self) -> list[int]:
        """The parts' process ids."""
        return [part["pid"] for part in self.state()["parts"].values()]

    def ask(self, part: str, path: str = "/") -> str:
        """What a part answers, or nothing."""
        try:
            return web.request("GET", self.state()["parts"][part]["url"] + path)[2].decode()
        except OSError:
            return ""

    def text(self) -> str:
        """All that was written to the terminal."""
        return self.output.read_text()

    def end(self) -> None:
        """Whatever the test did: nothing stays."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        for pid in self.pids() if self.state() else ():
            if is_part(pid):
                os.kill(pid, signal.SIGKILL)


def eventually(condition: Callable[[], object], explain: Callable[[], str], seconds: float = 30) -> None:
    """Polls until the condition holds. Fails with the explanation after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.03)


def all_gone(pids: list[int]) -> bool:
    """Whether none of the processes is a part any more."""
    return not any(is_part(pid) for pid in pids)
