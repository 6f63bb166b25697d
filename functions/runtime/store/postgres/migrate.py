"""The command that creates and migrates the schemas of the stores, and their roles.

Run it with `make migrate`, or `python -m functions.runtime.store.postgres.migrate`, for all stores or for those named
as arguments. It connects to STORE_ADMIN_URL, or to STORE_URL if that is empty. It may run at any time and in several
processes at once. Alembic records the applied migrations in the table `migration` of each schema.

Migrations must not break running releases that were written for the previous schema. So a migration only adds tables,
columns with defaults, indexes and functions. A changed function gets a new name (`commit_2`). Unused objects are
removed one release later, by a migration that also raises `serves`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from functions.runtime.settings import SettingsError, load
from functions.runtime.store.dynamodb.tables import definition
from functions.runtime.store.epochs import next_epoch
from functions.runtime.store.postgres.client import postgres_url
from functions.runtime.store.postgres.local import PostgresServer
from functions.runtime.store.postgres.schema import VERSION, role_of, schema_of

_FOLDER = Path(__file__).with_name("migrations")
_LOCK = 5_020_157_301  # any number; this advisory lock makes concurrent migrations run one after another
_ITERATIONS = 4096
_RIGHTS = (
    "REVOKE ALL ON SCHEMA {schema} FROM PUBLIC",
    "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC",
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.entity, {schema}.entry, {schema}.searched, {schema}.outbox,"
    " {schema}.guard TO {role}",
    "GRANT SELECT ON {schema}.store TO {role}",
    "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role}",
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The environment variables of the migration."""

    store_url: str = ""
    store_admin_url: str = ""
    store_admin_password: str = ""
    store_admin_password_file: str = ""
    store_passwords_dir: str = ""
    patience_seconds: float = 60.0


async def migrate(settings: Settings, stores: Sequence[str], say: Callable[[str], None]) -> None:
    """Migrate the schemas of these stores. `say` is called with a line for each. Raises SettingsError."""
    # If STORE_URL names a user, every domain connects as that user.
    user = postgres_url(settings.store_url).user if settings.store_url else None
    async with _connected(settings) as connection:
        for store in stores:
            role = user or role_of(store)
            await _ensure_role(connection, role, store, settings)
            await _migrate_one(connection, schema_of(store), role, say)


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Any]:
    """Context manager of a connection that excludes other migrations. Waits for a server that is starting."""
    import asyncpg  # imported only for this command
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    address = postgres_url(settings.store_admin_url or settings.store_url)

    async def connect() -> Any:
        password = _password(settings) or address.password
        return await asyncpg.connect(address.url, user=address.user, password=password, timeout=10)

    await _wait(connect, settings.patience_seconds)
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")
            await connection.commit()
            yield connection
    finally:
        await engine.dispose()


async def drop(settings: Settings, stores: Sequence[str]) -> None:
    """Drop the schemas of these stores with everything in them. Schemas that the migration did not create are kept."""
    async with _connected(settings) as connection:
        for schema in map(schema_of, stores):
            if await _version(connection, schema):
                await connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
        await connection.commit()


async def begin_epochs(settings: Settings, stores: Sequence[str]) -> dict[str, int]:
    """Begin a new epoch (see epochs.py) in the schemas of these stores. Returns the epochs by schema."""
    epochs: dict[str, int] = {}
    async with _connected(settings) as connection:
        for schema in map(schema_of, stores):
            last = (await connection.exec_driver_sql(f"SELECT epoch FROM {schema}.store")).scalar()
            epochs[schema] = next_epoch(last, datetime.now(UTC))
            await connection.exec_driver_sql(f"UPDATE {schema}.store SET epoch = $1", (epochs[schema],))
        await connection.commit()
    return epochs


def migrated(server: PostgresServer, stores: Sequence[str]) -> None:
    """Migrate the schemas of these stores on a private server. This works while an event loop runs."""
    settings = Settings(store_url=server.urls.domains, store_admin_url=server.urls.admin)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(migrate(settings, stores, lambda _: None))).result()


async def _wait(connect: Any, seconds: float) -> None:
    import asyncpg

    deadline = time.monotonic() + seconds
    while True:
        try:
            await (await connect()).close()
        except (OSError, asyncpg.CannotConnectNowError) as error:
            if time.monotonic() > deadline:
                raise SettingsError(f"STORE_URL: the server cannot be reached: {type(error).__name__}") from None
            await asyncio.sleep(0.5)
        else:
            return


async def _migrate_one(connection: Any, schema: str, role: str, say: Callable[[str], None]) -> None:
    run = connection.exec_driver_sql
    await run(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    before = await _version(connection, schema)
    if before > VERSION:
        raise SettingsError(f"the schema {schema} has version {before}, this release knows up to {VERSION}")
    await connection.commit()  # so that a migration can commit parts of its work
    await connection.run_sync(_upgrade, schema)
    for statement in _RIGHTS:
        await run(statement.format(schema=schema, role=f'"{role}"'))
    await connection.commit()
    say(f"{schema}: schema {VERSION}" if before == VERSION else f"{schema}: schema {before} -> {VERSION}")


def _upgrade(connection: Any, schema: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes.update(connection=connection, schema=schema)
    command.upgrade(config, "head")


async def _version(connection: Any, schema: str) -> int:
    found = await connection.exec_driver_sql(f"SELECT to_regclass('{schema}.store') IS NOT NULL")
    if not found.scalar():
        return 0
    found = await connection.exec_driver_sql(f"SELECT version FROM {schema}.store")
    return int(found.scalar())


async def _ensure_role(connection: Any, role: str, store: str, settings: Settings) -> None:
    """Create a missing role, and set its password and time-outs if the password is known. Raises SettingsError."""
    run = connection.exec_driver_sql
    exists = (await run("SELECT 1 FROM pg_roles WHERE rolname = $1", (role,))).scalar()
    password = _role_password(settings, store)
    if not exists:
        may = (await run("SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user")).scalar()
        if not may:
            raise SettingsError(f"the role {role} is missing, and this user may not create it")
        await run(f'CREATE ROLE "{role}" LOGIN')
    if password is not None:
        await run(f"ALTER ROLE \"{role}\" PASSWORD '{scram(password)}'")
        for setting in ("statement_timeout = '10s'", "idle_in_transaction_session_timeout = '10s'"):
            await run(f'ALTER ROLE "{role}" SET {setting}')
    await connection.commit()


def _role_password(settings: Settings, store: str) -> str | None:
    path = Path(settings.store_passwords_dir, store.partition("-")[0])
    return path.read_text().strip() if settings.store_passwords_dir and path.is_file() else None


def scram(password: str, salt: bytes = b"") -> str:
    """Return PostgreSQL's verifier of a password (RFC 5803), so that the password itself is in no statement."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client, server = (hmac.digest(salted, key, "sha256") for key in (b"Client Key", b"Server Key"))
    stored = hashlib.sha256(client).digest()
    encoded = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(_ITERATIONS, *encoded)


def _password(settings: Settings) -> str | None:
    if settings.store_admin_password or not settings.store_admin_password_file:
        return settings.store_admin_password or None
    try:
        return Path(settings.store_admin_password_file).read_text().strip()
    except OSError as error:
        raise SettingsError(f"STORE_ADMIN_PASSWORD_FILE: {type(error).__name__}, cannot read it") from None


def main(stores: Sequence[str]) -> int:
    """Migrate these stores, or all. Returns 0 if all are migrated; otherwise prints the reason and returns 1."""
    import asyncpg
    from sqlalchemy.exc import SQLAlchemyError

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    try:
        asyncio.run(migrate(load(Settings, os.environ), stores or definition()[0], say))
    except (SettingsError, SQLAlchemyError, asyncpg.PostgresError, OSError) as error:
        reason = getattr(error, "orig", None) or error
        sys.stderr.write(f"The schemas cannot be migrated: {str(reason).splitlines()[0]}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
