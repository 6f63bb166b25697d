"""What can go wrong with DynamoDB, in our words: what is worth another attempt, whose fault the rest is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from functions.runtime.errors import ServiceError, unavailable

T = TypeVar("T")

_log = logging.getLogger("shop.store")

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
