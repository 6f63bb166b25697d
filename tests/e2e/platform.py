"""The platform under test: the one at E2E_BASE_URL, or a local one with free ports and a temporary folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

ROOT = Path(__file__).parents[2]
ADMIN_EMAIL, ADMIN_PASSWORD = "admin@shop.test", "e2e-administrator-password"
START_SECONDS = 180.0


class Platform:
    """A platform: the address of its gateway, and the credentials of an administrator."""

    def __init__(self, base_url: str, host: str, email: str, password: str) -> None:
        self.base_url = base_url
        self.host = host
        self.admin_email = email
        self.admin_password = password


NO_VELOCITY = dict.fromkeys(
    (
        "ORDERS_PER_HOUR",
        "DECLINES_PER_HOUR",
        "UNPAID_ORDERS",
        "ORDERS_PER_HOUR_PER_DEVICE",
        "DECLINES_PER_HOUR_PER_DEVICE",
        "UNPAID_ORDERS_PER_DEVICE",
        "ORDERS_PER_HOUR_PER_ADDRESS",
        "DECLINES_PER_HOUR_PER_ADDRESS",
        "UNPAID_ORDERS_PER_ADDRESS",
        "UNPAID_STOCK_SHARE",
        "UNPAID_STOCK_SHARE_PER_ADDRESS",
    ),
    "0",
)
"""Settings for tests in which one customer places more orders than real customers do."""


class LocalPlatform(Platform):
    """`make up` as a process that a test may also stop and restart, and whose parts it may kill."""

    def __init__(self, folder: Path, *options: str, **environ: str) -> None:
        super().__init__("", "", ADMIN_EMAIL, ADMIN_PASSWORD)
        self.folder = folder
        self._options = options or ("--no-console",)
        many = dict.fromkeys(("REGISTRATIONS_PER_ADDRESS", "REGISTRATIONS_IN_ALL"), "100000") | NO_VELOCITY
        self._environ = {**many, **environ, "ADMIN_EMAIL": ADMIN_EMAIL, "ADMIN_PASSWORD": ADMIN_PASSWORD}
        self._runner: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the platform, and wait until all parts are ready."""
        command = [sys.executable, "-m", "knative.local", "--data", str(self.folder), "--ports", "free"]
        command += self._options
        environ = {**os.environ, **self._environ}
        with (self.folder.parent / f"{self.folder.name}.out").open("ab") as out:
            self._runner = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.state().get("ready"):
            if self._runner.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the platform did not start:\n{self.output()}")
            time.sleep(0.05)
        self.base_url = self.state()["base_url"]

    def stop(self) -> int:
        """Stop the platform as Ctrl-C does, and return the exit status."""
        assert self._runner is not None
        self._runner.send_signal(signal.SIGINT)
        return self._runner.wait(60)

    def destroy(self) -> None:
        """Kill the runner, its parts and its database by SIGKILL, and delete the folder."""
        assert self._runner is not None
        pids = [self._runner.pid, *(part["pid"] for part in self.state()["parts"].values())]
        with suppress(OSError):
            pids.append(int((self.folder / "postgres/data/postmaster.pid").read_text().split()[0]))
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._runner.wait()
        shutil.rmtree(self.folder)

    def state(self) -> dict[str, Any]:
        """Return the present content of platform.json."""
        try:
            state: dict[str, Any] = json.loads((self.folder / "platform.json").read_text())
        except (OSError, ValueError):
            return {}
        return state

    def pid(self, part: str) -> int:
        """Return the process id of a part."""
        return int(self.state()["parts"][part]["pid"])

    def kill(self, part: str) -> int:
        """Kill a part by SIGKILL, and return its process id."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        return pid

    def await_return(self, part: str, killed: int, seconds: float = 30.0) -> None:
        """Wait until the part runs again as another process, and the platform reports that it is ready."""
        deadline = time.monotonic() + seconds
        while self.state()["parts"][part]["pid"] in (killed, None) or not self.state()["ready"]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{part} did not come back:\n{self.output()}")
            time.sleep(0.05)

    def output(self) -> str:
        """Return the output of `make up`."""
        return (self.folder.parent / f"{self.folder.name}.out").read_text()[-4000:]

    def log(self, part: str) -> list[dict[str, Any]]:
        """Return the JSON lines that a part logged; only newlines end a line, as texts may contain other separators."""
        lines = (self.folder / "logs" / f"{part}.log").read_text().split("\n")
        return [json.loads(line) for line in lines if line.startswith("{")]


class GrpcIngress:
    """An ingress with a host name for gRPC clients: `host`, at the address `target` (host:port)."""

    def __init__(self, target: str, host: str, secure: bool) -> None:
        self.host = host
        self._target = target
        self._options = [("grpc.default_authority", host)]
        self._secure = secure

    def channel(self) -> grpc.aio.Channel:
        """Return a new channel to all domains."""
        if not self._secure:
            return grpc.aio.insecure_channel(self._target, options=self._options)
        return grpc.aio.secure_channel(self._target, grpc.ssl_channel_credentials(), options=self._options)


def grpc_ingress() -> GrpcIngress | None:
    """Return the ingress for the host E2E_GRPC_HOST at the address of E2E_BASE_URL; None if it is not set."""
    host = os.environ.get("E2E_GRPC_HOST")
    if not host:
        return None
    url = urlsplit(os.environ["E2E_BASE_URL"])
    secure = url.scheme == "https"
    return GrpcIngress(f"{url.hostname}:{url.port or (443 if secure else 80)}", host, secure)


def given() -> Platform | None:
    """Return the platform that E2E_BASE_URL, E2E_HOST, E2E_ADMIN_EMAIL and E2E_ADMIN_PASSWORD describe, if any."""
    url = os.environ.get("E2E_BASE_URL")
    if not url:
        return None
    environ = os.environ
    email = environ.get("E2E_ADMIN_EMAIL", "admin@shop.local")
    return Platform(url, environ.get("E2E_HOST", ""), email, environ.get("E2E_ADMIN_PASSWORD", ""))
