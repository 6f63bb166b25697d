"""Stores on PostgreSQL (`--store postgres`). Without DATABASE_URL, a private server runs with the platform."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from functions.runtime.store.dynamodb.tables import definition
from functions.runtime.store.port import NotAvailable
from functions.runtime.store.postgres.client import postgres_url
from functions.runtime.store.postgres.local import PostgresServer, Urls, binary
from functions.runtime.store.postgres.migrate import Settings, begin_epochs, drop, migrate
from functions.runtime.store.postgres.schema import schema_of
from knative.local import database

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
    binary("postgres")
    Urls.path(folder).unlink(missing_ok=True)
    words = ("functions.runtime.store.postgres.local", str(folder))
    with database.running("PostgreSQL", words, log, lambda: Urls.read(folder), _STOP_SECONDS) as urls:
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
def reached(folder: Path, given: str) -> Iterator[Urls]:
    """Context manager that yields the URLs of the database at `given`.

    If `given` is empty, they are those of the server with its data in `folder`, which is started if it does not run.
    """
    running = Urls.read(folder)
    if given:
        yield Urls(given, given)
    elif running:
        yield running
    else:
        with PostgresServer(folder, durable=True) as server:
            yield server.urls


@contextmanager
def snapshot(urls: Urls) -> Iterator[str]:
    """Context manager that takes a snapshot of the database. Yields the snapshot's id, for `dump`."""
    import asyncpg

    address = postgres_url(urls.admin)

    with asyncio.Runner() as runner:

        async def begin() -> tuple[Any, str]:
            connection = await asyncpg.connect(address.url, user=address.user, password=address.password)
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return connection, await connection.fetchval("SELECT pg_export_snapshot()")

        connection, name = runner.run(begin())
        try:
            yield name
        finally:
            runner.run(connection.close())


def dump(urls: Urls, name: str, to: Path) -> None:
    """Write the stores' schemas, as of snapshot `name`, to a file for pg_restore. Raises NotAvailable."""
    schemas = [word for store in definition()[0] for word in ("-n", schema_of(store))]
    _run(urls, "pg_dump", "-Fc", "-Z1", f"--snapshot={name}", "-f", str(to), *schemas)
    to.chmod(0o600)


def load(urls: Urls, source: Path, say: Callable[[str], None]) -> None:
    """Replace the stores' schemas by those of a dump, and begin a new epoch (see functions.runtime.store.epochs).

    Raises NotAvailable and SettingsError.
    """
    stores, settings = definition()[0], Settings(store_url=urls.domains, store_admin_url=urls.admin)
    prepare(urls, say)  # creates the roles, which a dump does not contain
    asyncio.run(drop(settings, stores))
    _run(urls, "pg_restore", "--single-transaction", "--no-owner", str(source))
    prepare(urls, say)  # migrates the schemas of an earlier release
    asyncio.run(begin_epochs(settings, stores))


def check(source: Path) -> None:
    """Raise NotAvailable unless a dump can be read to its end."""
    done = subprocess.run(  # noqa: S603 - our own command
        [binary("pg_restore"), "-f", os.devnull, str(source)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NotAvailable(f"{source} is damaged: {done.stderr.strip()}")


def _run(urls: Urls, program: str, *words: str) -> None:
    address = postgres_url(urls.admin)
    given = {"PGUSER": address.user, "PGPASSWORD": address.password}
    env = os.environ | {name: value for name, value in given.items() if value}
    done = subprocess.run(  # noqa: S603 - our own command
        [binary(program), "-d", _libpq(urls), *words], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NotAvailable(f"{program} failed: {done.stderr.strip()}")


def _libpq(urls: Urls) -> str:
    return postgres_url(urls.admin).url  # without `pool_size`, which libpq does not know
