"""Connections to PostgreSQL through asyncpg, with deadlines, retries and rotated passwords; and parsing of STORE_URL.

Every statement is a transaction of its own. So a connection holds no state between two statements, and PgBouncer may
pool by transaction.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from functions.runtime.settings import SettingsError
from functions.runtime.store.base import log
from functions.runtime.store.port import store_unavailable

T = TypeVar("T")

_FORM = "STORE_URL: must be postgresql://host:port/database, with any of the parameters "
_LIBPQ = frozenset({"host", "sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs"})
_POOL_SIZE = "pool_size"
_LARGEST_POOL = 32


class Address(NamedTuple):
    """The parts of STORE_URL: the URL for asyncpg without credentials, the user, the password and the pool's size."""

    url: str
    user: str | None
    password: str | None
    pool_size: int


def postgres_url(url: str) -> Address:
    """Parse STORE_URL: `postgresql://user@host:port/database?sslmode=verify-full&sslrootcert=/ca.crt&pool_size=4`.

    Several hosts are separated by commas. Raises SettingsError, whose message contains no part of the URL.
    """
    parts = urlsplit(url)
    given = parse_qs(parts.query, keep_blank_values=True)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    size = given.pop(_POOL_SIZE, ["4"])
    wrong = (
        parts.scheme != "postgresql"
        or not re.fullmatch(r"/[^/]+", parts.path)
        or parts.fragment
        or not given.keys() <= _LIBPQ
        or any(len(values) != 1 or not values[0] for values in given.values())
        or not re.fullmatch("[0-9]{1,2}", size[0])
        or not 1 <= int(size[0]) <= _LARGEST_POOL
    )
    if wrong:
        raise SettingsError(_FORM + ", ".join(sorted(_LIBPQ | {_POOL_SIZE})))
    query = urlencode({name: values[0] for name, values in given.items()}, quote_via=quote)
    return Address(
        f"postgresql://{hosts}{parts.path}?{query}",
        unquote(user) or None,
        unquote(password) or None,
        int(size[0]),
    )


class Connection(NamedTuple):
    """Parameters of the connections. Times are in seconds.

    `password` returns the password, or None; it is called for each new connection. `timeout` bounds an operation with
    all its retries. The first operation has `first` additional seconds. The pause before a retry is random, up to a
    limit that starts at `first_pause` and doubles with each retry up to `longest_pause`. A connection that was idle for
    `idle` is closed.
    """

    url: str
    user: str
    password: Callable[[], str | None]
    pool_size: int = 4
    connect_timeout: float = 5.0
    timeout: float = 5.0
    first: float = 10.0
    first_pause: float = 0.02
    longest_pause: float = 0.5
    idle: float = 300.0


class LostRace(Exception):
    """Another transaction changed the rows first."""


class Unsure(Exception):
    """The connection was lost during a statement, which may or may not have taken effect."""


class Retriable(Exception):
    """A statement had no effect, and another attempt may succeed."""


class Refused(RuntimeError):
    """The database rejected the values of a statement. A retry does not help. `code` is the SQLSTATE."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


# SQLSTATEs of a server that is starting, stopping, failing over or out of connections.
_PASSING = frozenset({"57P01", "57P02", "57P03", "57P05", "53300", "25006", "28000", "28P01", "55000", "08P01"})
_RACES = frozenset({"40001", "40P01", "55P03"})
_UNMIGRATED = frozenset({"3F000", "42P01", "42883", "42703", "42501"})
# Classes (the first two characters) of SQLSTATEs that mean invalid values, or a statement that exceeds a limit.
_OURS = frozenset({"22", "23", "42", "54"})


class Database:
    """One database, with a pool of connections that are opened on demand."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pool: Any = None
        self._closed = False

    def begin(self) -> float:
        """Return the deadline of an operation that begins now, on the event loop's clock.

        The first operation gets `Connection.first` additional seconds, because it imports the driver and connects,
        which takes seconds on a busy machine.
        """
        settings = self._connection
        return asyncio.get_running_loop().time() + settings.timeout + (0 if self._pool else settings.first)

    async def fetch(self, deadline: float, sql: str, *values: Any) -> Sequence[Any]:
        """Run a statement that may run twice, with retries, and return its rows. Raises UNAVAILABLE or Refused."""
        attempt = 0
        while True:
            try:
                return await self.once(deadline, sql, *values)
            except (Retriable, Unsure, LostRace) as error:
                await self.pause(attempt, deadline, error)
                attempt += 1

    async def once(self, deadline: float, sql: str, *values: Any) -> Sequence[Any]:
        """Run a statement once and return its rows.

        Raises:
            LostRace: it had no effect because of another transaction.
            Retriable: it had no effect because of a transient fault.
            Unsure: it may or may not have had an effect.
            Refused: the database rejected these values.
            Unavailable: the store is closed.
        """
        if self._closed:
            raise store_unavailable("The store is closed.")
        sent = False
        try:
            async with asyncio.timeout_at(deadline):
                pool = self._pool or await self._open()
                async with pool.acquire(timeout=self._connection.timeout) as connection:
                    sent = True
                    try:
                        rows: Sequence[Any] = await connection.fetch(sql, *values)
                    except Exception as error:
                        if _is_fatal(error):
                            connection.terminate()
                        raise
                    return rows
        except TimeoutError:
            if not sent:
                raise Retriable("no connection in time") from None
            raise Unsure("no answer in time") from None
        except Exception as error:
            await self._translate(error, sent=sent)

    async def pause(self, attempt: int, deadline: float, error: Exception) -> None:
        """Wait for a random time after the failed attempt number `attempt` (from 0).

        Raises UNAVAILABLE if the deadline comes before the end of the pause.
        """
        settings = self._connection
        longest = min(settings.longest_pause, settings.first_pause * 2.0 ** min(attempt, 16))
        seconds = random.uniform(0, longest)
        if self._closed or asyncio.get_running_loop().time() + seconds >= deadline:
            log.error("PostgreSQL was given up: %s", error, extra={"attempts": attempt + 1})
            raise store_unavailable() from error
        await asyncio.sleep(seconds)

    async def refresh(self) -> None:
        """Replace every connection before its next use, for example after a fail-over."""
        if self._pool is not None:
            await self._pool.expire_connections()

    async def close(self) -> None:
        """Refuse later statements, finish those in progress, and close the connections."""
        self._closed = True
        if self._pool is not None:
            try:
                async with asyncio.timeout(self._connection.timeout):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()

    async def _open(self) -> Any:
        import asyncpg  # imported only in this adapter

        settings = self._connection
        # There is no `await` before the assignment: `create_pool` opens no connection yet.
        self._pool = asyncpg.create_pool(
            settings.url,
            user=settings.user,
            password=settings.password,
            min_size=0,
            max_size=settings.pool_size,
            timeout=settings.connect_timeout,
            max_inactive_connection_lifetime=settings.idle,
            reset=_keep,
        )
        return await self._pool

    async def _translate(self, error: Exception, *, sent: bool) -> NoReturn:
        import asyncpg  # imported only in this adapter

        if isinstance(error, asyncpg.PostgresError):
            await self._translate_answer(error.sqlstate or "", error)
        if isinstance(error, asyncpg.DataError | UnicodeEncodeError):  # asyncpg could not encode a value
            raise Refused("22000", str(error)) from error
        if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError):
            await self.refresh()
            if sent:
                raise Unsure(type(error).__name__) from error
            raise Retriable(type(error).__name__) from error
        if isinstance(error, SettingsError):  # the password's file cannot be read at the moment
            raise Retriable(str(error)) from error
        raise error

    async def _translate_answer(self, code: str, error: Exception) -> NoReturn:
        message = str(error)
        if code in _RACES:
            raise LostRace(code) from error
        if code in _PASSING or code[:2] == "08":
            log.warning("PostgreSQL cannot be used at the moment: %s", message, extra={"code": code})
            await self.refresh()
            # asyncpg raises errors of class 08 when a connection is lost during a statement.
            raise (Unsure if code[:2] == "08" or code in {"57P01", "57P02"} else Retriable)(code) from error
        log.error("PostgreSQL refused a statement: %s", message, extra={"code": code})
        if code in _UNMIGRATED:
            log.error("store_schema: the schema is missing or cannot be used: run the migration")
            raise store_unavailable() from error
        if code[:2] in _OURS:
            raise Refused(code, type(error).__name__) from error
        raise store_unavailable() from error


def _is_fatal(error: Exception) -> bool:
    """Return whether the connection can no longer be used after this error."""
    code = getattr(error, "sqlstate", None) or ""
    return code in _PASSING or code[:2] == "08"


async def _keep(_: Any) -> None:
    """Do nothing when a connection returns to the pool, because statements leave no session state."""
