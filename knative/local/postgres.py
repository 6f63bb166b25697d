"""Keep the stores on PostgreSQL: `--store postgres`. Without DATABASE_URL, a private server runs with the platform."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from functions.runtime.store.dynamodb.tables import definition
from functions.runtime.store.postgres.local import NotAvailable, Urls, binary
from functions.runtime.store.postgres.migrate import Settings, drop, migrate
from knative.local.logs import last_lines, open_log
from knative.local.parts import launch

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0


@contextmanager
def running(
    folder: Path, log: Path, shell: Mapping[str, str], say: Callable[[str], None], *, fresh: bool = False
) -> Iterator[dict[str, str]]:
    """Context manager that runs a private server, unless DATABASE_URL is set, and migrates the stores' schemas.

    Yields the environment variables for the parts. With `fresh`, the schemas are dropped first. Raises NotAvailable,
    and SettingsError.
    """
    given = shell.get("DATABASE_URL", "")
    if given:
        prepare(Urls(given, given), say, fresh=fresh)
        yield {"STORE_URL": given}
        return
    with _server(folder, log) as urls:
        prepare(urls, say)
        yield {"STORE_URL": urls.domains}


def prepare(urls: Urls, say: Callable[[str], None], *, fresh: bool = False) -> None:
    """Migrate the schemas of all stores. Raises SettingsError."""
    settings = Settings(store_url=urls.domains, store_admin_url=urls.admin)
    stores, _ = definition()

    async def run() -> None:
        if fresh:
            await drop(settings, stores)
        await migrate(settings, stores, say)

    asyncio.run(run())


@contextmanager
def _server(folder: Path, log: Path) -> Iterator[Urls]:
    binary("postgres")
    Urls.path(folder).unlink(missing_ok=True)
    output = open_log(log)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own command
            launch("functions.runtime.store.postgres.local", str(folder)),
            stdin=subprocess.PIPE,  # it ends when this pipe closes, see launch
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must not end it, because it has to stop after the last part
        )
    finally:
        os.close(output)
    try:
        yield _wait(process, folder, log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()


def _wait(process: subprocess.Popen[bytes], folder: Path, log: Path) -> Urls:
    deadline = time.monotonic() + _START_SECONDS
    while not (urls := Urls.read(folder)):
        if process.poll() is not None or time.monotonic() > deadline:
            lines = "\n".join(f"    {line.decode(errors='replace')}" for line in last_lines(log, 5))
            raise NotAvailable(f"PostgreSQL does not start. The end of {log}:\n{lines}")
        time.sleep(0.05)
    return urls
