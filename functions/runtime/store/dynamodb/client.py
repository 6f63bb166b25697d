"""Calls of DynamoDB by boto3: in threads, with a deadline, with retries and errors of our own; and its STORE_URL.

boto3 blocks, so calls run in a pool of threads with as many connections. What is worth trying again (throttling,
conflicts, lost connections) is tried again here and not by botocore, whose pauses would each hold a thread.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from functions.runtime import aws
from functions.runtime.settings import SettingsError
from functions.runtime.store.base import log
from functions.runtime.store.port import store_unavailable

_PREFIX = "shop-"


class Address(NamedTuple):
    """The prefix of the tables' names, and where the tables are. None leaves the choice to boto3's own settings."""

    prefix: str
    endpoint: str | None
    region: str | None


def dynamodb_url(url: str) -> Address:
    """Parse STORE_URL: `dynamodb:` or `dynamodb://prefix?endpoint=http://host:port&region=eu-central-1`.

    Raises SettingsError.
    """
    parts = urlsplit(url)
    given = parse_qs(parts.query, keep_blank_values=True)
    prefix = parts.netloc or _PREFIX
    wrong = (
        parts.scheme != "dynamodb"
        or parts.path
        or parts.fragment
        or not re.fullmatch(r"[A-Za-z0-9_.-]+", prefix)
        or not given.keys() <= {"endpoint", "region"}
        or any(len(values) != 1 or not values[0] for values in given.values())
    )
    if wrong:
        raise SettingsError("STORE_URL: must be dynamodb://prefix?endpoint=http://host:port&region=name")
    return Address(prefix, given.get("endpoint", [None])[0], given.get("region", [None])[0])


T = TypeVar("T")


_AGAIN = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
PROBE = "probe"
"""The name of a call that the database is expected to refuse."""
CONFLICTS = frozenset(
    {"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "DuplicateItem"}
)
_OURS = frozenset({"ValidationException", "IdempotentParameterMismatchException", "SerializationException"})


class LostRace(Exception):
    """A condition of a transaction did not hold, because another transaction was faster."""


class Refused(RuntimeError):
    """The database rejected a request as wrong. A retry does not help."""


class NoTransactions(RuntimeError):
    """The database has the API of DynamoDB, but no transactions."""

    def __init__(self) -> None:
        super().__init__(
            "STORE_URL: this database has no TransactWriteItems (ScyllaDB's Alternator has none), so state and events "
            "could not commit together: use DynamoDB"
        )


class Retriable(Exception):
    """A call failed and is worth another attempt."""


class NoTable(Exception):
    """The table does not exist."""


class Cancelled(Exception):
    """A transaction was cancelled, for these reasons."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = frozenset(reasons)


def invoke(operation: str, work: Callable[[], T]) -> T:
    """Return what `work` returns. Raises the errors of this module, and UNAVAILABLE for every other error of boto3."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError  # only this adapter's cost

    try:
        return work()
    except ClientError as error:
        raise _translated(operation, error.response) from error
    except HTTPClientError as error:
        raise Retriable(str(error)) from error
    except BotoCoreError as error:  # no credentials, no region
        log.error("DynamoDB cannot be used: %s", error, extra={"operation": operation})
        raise store_unavailable() from error


def _translated(operation: str, response: dict[str, Any]) -> Exception:
    error = response.get("Error", {})
    code, message = error.get("Code", ""), error.get("Message", "")
    if code == "TransactionCanceledException":
        return Cancelled([reason.get("Code", "None") for reason in response.get("CancellationReasons", ())])
    if code in _AGAIN or response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        return Retriable(code)
    level = logging.DEBUG if operation == PROBE else logging.ERROR
    log.log(level, "DynamoDB refused a call: %s: %s", code, message, extra={"operation": operation})
    if code == "UnknownOperationException":
        return NoTransactions()
    if code == "ResourceNotFoundException":
        return NoTable(operation)
    return Refused(f"{operation}: {code}") if code in _OURS else store_unavailable()


_CONNECTING = 30.0  # seconds


class Connection(NamedTuple):
    """How to reach the database. Values that are None come from boto3's own chain (AWS_REGION and so on).

    Times are in seconds. `timeout` bounds an operation with all its retries, the other timeouts one attempt. The pause
    before a retry is random, at most `first_pause`, which doubles with each retry up to `longest_pause`.
    """

    endpoint: str | None = None
    region: str | None = None
    threads: int = 16
    connect_timeout: float = 1.0
    read_timeout: float = 2.0
    timeout: float = 5.0
    attempts: int = 10
    first_pause: float = 0.02
    longest_pause: float = 0.5


def make_client(connection: Connection) -> Any:
    """Return a client of DynamoDB without botocore's retries and validation."""
    return aws.make_client(
        "dynamodb",
        connection.region,
        connection.endpoint,
        connect_timeout=connection.connect_timeout,
        read_timeout=connection.read_timeout,
        max_pool_connections=connection.threads,
        parameter_validation=False,  # a fifth of a call's cost; the contract suite checks the parameters
        retries={"mode": "standard", "total_max_attempts": 1},
        tcp_keepalive=True,
    )


class Database:
    """One client, which is made at first use.

    `prepare` creates tables that may be missing. It runs before the first call, and again if a table is gone, as after
    a restart of a DynamoDB Local in memory. `make` makes the client; tests pass one that fails.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        prepare: Callable[[Any], None] | None = None,
        make: Callable[[Connection], Any] = make_client,
    ) -> None:
        self._connection = connection
        self._prepare = prepare
        self._make = make
        self._connecting = asyncio.Lock()
        self._client: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._slots = asyncio.Semaphore(connection.threads)
        self._closed = False
        self._has_transactions = False

    async def begin(self) -> float:
        """Return the deadline of an operation that begins now, by the loop's clock.

        The first call makes the client, which may take seconds on a busy machine, and longer where tables are created.
        Raises UNAVAILABLE.
        """
        loop = asyncio.get_running_loop()
        if self._client is None:
            await self._connect(loop.time() + max(_CONNECTING, self._connection.timeout))
        return loop.time() + self._connection.timeout

    async def call(self, operation: str, deadline: float, **parameters: Any) -> dict[str, Any]:
        """Call an idempotent operation (`get_item`), with retries, and return its answer.

        Raises UNAVAILABLE if there is no answer by `deadline`, Refused for a wrong request.
        """
        for attempt in range(self._connection.attempts):
            try:
                return await self._once(operation, parameters, deadline)
            except Retriable as error:
                await self.pause(attempt, deadline, error)
        raise AssertionError("unreachable")

    async def transact(self, actions: Sequence[dict[str, Any]], deadline: float) -> None:
        """Call TransactWriteItems. It takes effect once, however often the answer is lost.

        Raises LostRace, and what `call` raises.
        """
        parameters = {"TransactItems": actions, "ClientRequestToken": str(uuid4())}
        unsure = False
        failures = conflicts = 0
        while True:
            try:
                await self._once("transact_write_items", parameters, deadline)
            except Cancelled as error:
                if "ConditionalCheckFailed" in error.reasons:
                    raise LostRace from None
                if not error.reasons <= CONFLICTS:
                    raise Refused(f"transaction cancelled: {error}") from None
                if not unsure:
                    parameters["ClientRequestToken"] = str(uuid4())
                await self.pause(conflicts, deadline, error, unlimited=True)
                conflicts += 1
            except Retriable as error:
                unsure = True  # it may have taken effect; DynamoDB recognises the token
                await self.pause(failures, deadline, error)
                failures += 1
            else:
                return

    async def require_transactions(self, deadline: float) -> None:
        """Raise NoTransactions if the database has none. Only a configured endpoint is asked, and only once."""
        if self._has_transactions or self._connection.endpoint is None:
            return
        try:
            await self._run(PROBE, lambda: self._client.transact_write_items(TransactItems=[]), deadline)
        except Retriable:
            return  # asked again by the next call
        except Refused:
            pass  # DynamoDB refuses an empty transaction
        self._has_transactions = True

    async def pause(
        self, attempt: int, deadline: float, error: Exception, *, unlimited: bool = False
    ) -> None:
        """Wait for a random time before the attempt that follows `attempt` (from 0).

        Raises UNAVAILABLE if the deadline comes first, or if there were `Connection.attempts`, unless `unlimited`:
        after a lost race the database works, and only the deadline ends the attempts.
        """
        settings = self._connection
        longest = min(settings.longest_pause, settings.first_pause * 2.0 ** min(attempt, 16))
        seconds = random.uniform(0, longest)
        late = asyncio.get_running_loop().time() + seconds >= deadline
        if self._closed or late or (attempt + 1 >= settings.attempts and not unlimited):
            log.error("DynamoDB was given up: %s", error, extra={"attempts": attempt + 1})
            raise store_unavailable() from error
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Refuse later calls, and wait for those in progress."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool:
            await asyncio.to_thread(pool.shutdown)
        if self._client:
            self._client.close()

    async def _connect(self, deadline: float) -> None:
        async with self._connecting:
            attempt = 0
            while self._client is None:
                try:
                    await self._run("connect", self._make_client, deadline)
                except Retriable as error:
                    await self.pause(attempt, deadline, error)
                    attempt += 1

    def _make_client(self) -> None:
        client = self._make(self._connection)
        if self._prepare:
            self._prepare(client)
        self._client = client

    async def _once(self, operation: str, parameters: dict[str, Any], deadline: float) -> dict[str, Any]:
        call = getattr(self._client, operation)
        try:
            answer: dict[str, Any] = await self._run(operation, lambda: call(**parameters), deadline)
        except NoTable as error:
            await self._make_tables(deadline)
            raise Retriable(str(error)) from error
        return answer

    async def _make_tables(self, deadline: float) -> None:
        """Create missing tables. Raises UNAVAILABLE if this process does not create tables."""
        prepare, client = self._prepare, self._client
        if prepare is None:
            raise store_unavailable()
        async with self._connecting:  # the first caller creates them, the others find them
            await self._run("create_table", lambda: prepare(client), deadline)

    async def _run(self, operation: str, work: Callable[[], T], deadline: float) -> T:
        if self._closed:
            raise store_unavailable("The store is closed.")
        try:
            async with asyncio.timeout_at(deadline):
                return await self._in_thread(lambda: invoke(operation, work))
        except TimeoutError:
            log.error("DynamoDB did not answer in time", extra={"operation": operation})
            raise store_unavailable() from None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        # Waiting here ends at the deadline; waiting in the pool's queue would not.
        await self._slots.acquire()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._connection.threads, "store-dynamodb")
        future = self._pool.submit(work)

        def free(_: object) -> None:
            with suppress(RuntimeError):  # the loop was closed before the call ended
                loop.call_soon_threadsafe(self._slots.release)

        future.add_done_callback(free)
        return await asyncio.wrap_future(future)
