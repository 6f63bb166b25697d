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
from functions.runtime.errors import ServiceError, unavailable
from functions.runtime.settings import SettingsError

_PREFIX = "shop-"


class Address(NamedTuple):
    """What the tables' names begin with, and where they are; None: where boto3's own settings say."""

    prefix: str
    endpoint: str | None
    region: str | None


def dynamodb_url(url: str) -> Address:
    """`dynamodb:` or `dynamodb://prefix?endpoint=http://host:port&region=eu-central-1`; raises SettingsError."""
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
"""The name of a call that is meant to be refused."""
CONFLICTS = frozenset(
    {"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "DuplicateItem"}
)
_OURS = frozenset({"ValidationException", "IdempotentParameterMismatchException", "SerializationException"})


class LostRace(Exception):
    """A condition of a transaction did not hold: somebody else was faster."""


class Refused(RuntimeError):
    """The database found a request wrong: a fault of ours, which no retry mends."""


class NoTransactions(RuntimeError):
    """The database speaks DynamoDB's language, but knows no transactions."""

    def __init__(self) -> None:
        super().__init__(
            "STORE_URL: this database has no TransactWriteItems (ScyllaDB's Alternator has none), so state and events "
            "could not commit together: use DynamoDB"
        )


class Again(Exception):
    """Worth another attempt."""


class NoTable(Exception):
    """The table is not there."""


class Cancelled(Exception):
    """A transaction was not done, for these reasons."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = frozenset(reasons)


def invoke(operation: str, work: Callable[[], T]) -> T:
    """What `work` returns; raises the errors of this module, and UNAVAILABLE for all that is nobody's here."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError  # only this adapter's cost

    try:
        return work()
    except ClientError as error:
        raise _translated(operation, error.response) from error
    except HTTPClientError as error:
        raise Again(str(error)) from error
    except BotoCoreError as error:  # no credentials, no region
        _log.error("DynamoDB cannot be used: %s", error, extra={"operation": operation})
        raise unreachable() from error


def _translated(operation: str, response: dict[str, Any]) -> Exception:
    error = response.get("Error", {})
    code, message = error.get("Code", ""), error.get("Message", "")
    if code == "TransactionCanceledException":
        return Cancelled([reason.get("Code", "None") for reason in response.get("CancellationReasons", ())])
    if code in _AGAIN or response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        return Again(code)
    level = logging.DEBUG if operation == PROBE else logging.ERROR
    _log.log(level, "DynamoDB refused a call: %s: %s", code, message, extra={"operation": operation})
    if code == "UnknownOperationException":
        return NoTransactions()
    if code == "ResourceNotFoundException":
        return NoTable(operation)
    return Refused(f"{operation}: {code}") if code in _OURS else unreachable()


def unreachable() -> ServiceError:
    """UNAVAILABLE, as every store says it."""
    return unavailable("STORE_UNAVAILABLE", "The store cannot be reached at the moment.")


_log = logging.getLogger("shop.store")
_CONNECTING = 30.0  # seconds


class Connection(NamedTuple):
    """How the database is reached; what is None comes from boto3's own chain (AWS_REGION and so on).

    Times in seconds: `patience` bounds an operation with all its retries, the others one attempt. `first_pause`
    doubles with each retry up to `longest_pause`, and is drawn between nothing and that.
    """

    endpoint: str | None = None
    region: str | None = None
    threads: int = 16
    connect_timeout: float = 1.0
    read_timeout: float = 2.0
    patience: float = 5.0
    attempts: int = 10
    first_pause: float = 0.02
    longest_pause: float = 0.5


def make_client(connection: Connection) -> Any:
    """DynamoDB's client, without the retries and checks that are ours."""
    return aws.make_client(
        "dynamodb",
        connection.region,
        connection.endpoint,
        connect_timeout=connection.connect_timeout,
        read_timeout=connection.read_timeout,
        max_pool_connections=connection.threads,
        parameter_validation=False,  # a fifth of a call's cost, and the store's tests know the shapes
        retries={"mode": "standard", "total_max_attempts": 1},
        tcp_keepalive=True,
    )


class Database:
    """One client, made at first use; `prepare` (for tables that may be missing) runs before its first call, and again
    when a table turns out to be gone, as after a restart of a DynamoDB Local in memory.
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
        """When an operation that begins now is to be given up, by the loop's clock.

        The first one makes the client before, which takes its time on a busy machine, and longer where tables are to be
        made. Raises UNAVAILABLE.
        """
        loop = asyncio.get_running_loop()
        if self._client is None:
            await self._connect(loop.time() + max(_CONNECTING, self._connection.patience))
        return loop.time() + self._connection.patience

    async def call(self, operation: str, deadline: float, **parameters: Any) -> dict[str, Any]:
        """The answer of an operation (`get_item`), for which any number of times is as good as once.

        Raises UNAVAILABLE when it could not be had by `deadline`, Refused for a request that is wrong.
        """
        for attempt in range(self._connection.attempts):
            try:
                return await self._once(operation, parameters, deadline)
            except Again as error:
                await self.pause(attempt, deadline, error)
        raise AssertionError("unreachable")

    async def transact(self, actions: Sequence[dict[str, Any]], deadline: float) -> None:
        """TransactWriteItems, once however often the answer is lost; raises LostRace, and what `call` does."""
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
                await self.pause(conflicts, deadline, error, patiently=True)
                conflicts += 1
            except Again as error:
                unsure = True  # it may have been done: DynamoDB knows by the token
                await self.pause(failures, deadline, error)
                failures += 1
            else:
                return

    async def require_transactions(self, deadline: float) -> None:
        """Raise NoTransactions where there are none: asked once, of an endpoint of one's own only."""
        if self._has_transactions or self._connection.endpoint is None:
            return
        try:
            await self._guarded(PROBE, lambda: self._client.transact_write_items(TransactItems=[]), deadline)
        except Again:
            return  # the next one may tell
        except Refused:
            pass  # as DynamoDB does with an empty one
        self._has_transactions = True

    async def pause(
        self, attempt: int, deadline: float, error: Exception, *, patiently: bool = False
    ) -> None:
        """Wait a random while before the attempt after `attempt` (from 0).

        Raises UNAVAILABLE when that was the last: the deadline comes before, or, unless `patiently` (somebody else was
        faster, so the database is well), there were enough.
        """
        settings = self._connection
        longest = min(settings.longest_pause, settings.first_pause * 2.0 ** min(attempt, 16))
        seconds = random.uniform(0, longest)
        late = asyncio.get_running_loop().time() + seconds >= deadline
        if self._closed or late or (attempt + 1 >= settings.attempts and not patiently):
            _log.error("DynamoDB was given up: %s", error, extra={"attempts": attempt + 1})
            raise unreachable() from error
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Take no more calls, and wait for those under way."""
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
                    await self._guarded("connect", self._make_client, deadline)
                except Again as error:
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
            answer: dict[str, Any] = await self._guarded(operation, lambda: call(**parameters), deadline)
        except NoTable as error:
            await self._make_tables(deadline)
            raise Again(str(error)) from error
        return answer

    async def _make_tables(self, deadline: float) -> None:
        """Raises UNAVAILABLE where that is not ours to do."""
        prepare, client = self._prepare, self._client
        if prepare is None:
            raise unreachable()
        async with self._connecting:  # the first makes them, for the others they are then there
            await self._guarded("create_table", lambda: prepare(client), deadline)

    async def _guarded(self, operation: str, work: Callable[[], T], deadline: float) -> T:
        if self._closed:
            raise unavailable("STORE_UNAVAILABLE", "The store is closed.")
        try:
            async with asyncio.timeout_at(deadline):
                return await self._in_thread(lambda: invoke(operation, work))
        except TimeoutError:
            _log.error("DynamoDB did not answer in time", extra={"operation": operation})
            raise unreachable() from None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        await (
            self._slots.acquire()
        )  # waiting here ends with the deadline, and waiting in the pool's queue would not
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._connection.threads, "store-dynamodb")
        future = self._pool.submit(work)

        def free(_: object) -> None:
            with suppress(RuntimeError):  # the loop was closed without waiting for us
                loop.call_soon_threadsafe(self._slots.release)

        future.add_done_callback(free)
        return await asyncio.wrap_future(future)
