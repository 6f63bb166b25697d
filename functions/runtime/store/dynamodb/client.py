"""Calls of DynamoDB through boto3, with a deadline, retries and this module's own errors; and parsing of STORE_URL.

boto3 blocks, so calls run in a pool of threads with as many connections. Retriable failures (throttling, conflicts,
lost connections) are retried here and not by botocore, because botocore's pauses would each occupy a thread.
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
    """The prefix of the tables' names, and their endpoint and region. None means boto3's own setting."""

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
"""The name of the call that checks for transactions; the database is expected to refuse it."""
CONFLICTS = frozenset(
    {"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "DuplicateItem"}
)
_OURS = frozenset({"ValidationException", "IdempotentParameterMismatchException", "SerializationException"})


class LostRace(Exception):
    """A condition of a transaction did not hold, because another transaction was faster."""


class Refused(RuntimeError):
    """The database rejected a request as invalid. A retry does not help."""


class NoTransactions(RuntimeError):
    """The database has the API of DynamoDB but does not support transactions."""

    def __init__(self) -> None:
        super().__init__(
            "STORE_URL: this database has no TransactWriteItems (ScyllaDB's Alternator has none), so state and events "
            "could not commit together: use DynamoDB"
        )


class Retriable(Exception):
    """A call failed in a way that another attempt may succeed."""


class NoTable(Exception):
    """The table does not exist."""


class Cancelled(Exception):
    """DynamoDB cancelled a transaction. `reasons` are its codes."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = frozenset(reasons)


def invoke(operation: str, work: Callable[[], T]) -> T:
    """Call `work` and return its result. Errors of boto3 become the errors of this module, or else UNAVAILABLE."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError  # import only in this adapter

    try:
        return work()
    except ClientError as error:
        raise _translated(operation, error.response) from error
    except HTTPClientError as error:
        raise Retriable(str(error)) from error
    except BotoCoreError as error:  # for example no credentials or no region
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
    """Parameters of the connection. Values that are None come from boto3's own chain (AWS_REGION and so on).

    Times are in seconds. `timeout` bounds an operation with all its retries; the other timeouts bound one attempt. The
    pause before a retry is random, up to a limit that starts at `first_pause` and doubles with each retry up to
    `longest_pause`.
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
        parameter_validation=False,  # it is a fifth of a call's cost; the contract suite checks the parameters
        retries={"mode": "standard", "total_max_attempts": 1},
        tcp_keepalive=True,
    )


class Database:
    """One connection to DynamoDB, whose client is created at first use.

    `prepare` creates missing tables. It runs before the first call, and again if a table has disappeared, as after a
    restart of an in-memory DynamoDB Local. `make` creates the client; tests pass a function whose client fails.
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
        """Return the deadline of an operation that begins now, on the event loop's clock.

        The first call creates the client, which may take seconds on a busy machine, and longer if it creates tables.
        Raises UNAVAILABLE.
        """
        loop = asyncio.get_running_loop()
        if self._client is None:
            await self._connect(loop.time() + max(_CONNECTING, self._connection.timeout))
        return loop.time() + self._connection.timeout

    async def call(self, operation: str, deadline: float, **parameters: Any) -> dict[str, Any]:
        """Call an idempotent operation (`get_item`), with retries, and return its response.

        Raises UNAVAILABLE if there is no response by `deadline`, and Refused for an invalid request.
        """
        for attempt in range(self._connection.attempts):
            try:
                return await self._once(operation, parameters, deadline)
            except Retriable as error:
                await self.pause(attempt, deadline, error)
        raise AssertionError("unreachable")

    async def transact(self, actions: Sequence[dict[str, Any]], deadline: float) -> None:
        """Call TransactWriteItems. It takes effect once, however often the response is lost.

        Raises LostRace, and the errors of `call`.
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
                unsure = True  # the transaction may have taken effect; DynamoDB recognises a repeated token
                await self.pause(failures, deadline, error)
                failures += 1
            else:
                return

    async def require_transactions(self, deadline: float) -> None:
        """Raise NoTransactions if the database does not support them.

        Only a configured endpoint is checked, and not again after a conclusive response.
        """
        if self._has_transactions or self._connection.endpoint is None:
            return
        try:
            await self._run(PROBE, lambda: self._client.transact_write_items(TransactItems=[]), deadline)
        except Retriable:
            return  # inconclusive; the next call checks again
        except Refused:
            pass  # a database with transactions refuses an empty one
        self._has_transactions = True

    async def pause(self, attempt: int, deadline: float, error: Exception, *, unlimited: bool = False) -> None:
        """Wait for a random time after the failed attempt number `attempt` (from 0).

        Raises UNAVAILABLE if the deadline comes before the end of the pause, or after `Connection.attempts` attempts.
        With `unlimited`, which is for lost races, only the deadline ends the attempts, because the database works.
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
        """Refuse later calls, and wait for the calls in progress."""
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
        async with self._connecting:  # the first caller creates the tables; later callers find them
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
        # Wait for a thread here and not in the pool's queue, because this wait ends at the deadline.
        await self._slots.acquire()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._connection.threads, "store-dynamodb")
        future = self._pool.submit(work)

        def free(_: object) -> None:
            with suppress(RuntimeError):  # raised if the loop was closed before the call ended
                loop.call_soon_threadsafe(self._slots.release)

        future.add_done_callback(free)
        return await asyncio.wrap_future(future)
