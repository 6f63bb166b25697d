"""The platform's error: a code independent of the protocol, a stable reason, a message for people, and violations.

Three modules translate it for a protocol: `functions.runtime.rpc.errors` (gRPC status with google.rpc details),
`functions.runtime.event_function` (HTTP status of an event function) and `gateway.problems` (RFC 9457).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from events.catalog import Money


class Code(Enum):
    """The canonical codes of gRPC that the platform uses."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    ABORTED = "ABORTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


TRANSIENT = frozenset({Code.ABORTED, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED})


class Violation(NamedTuple):
    """The violation of one field: its path (`lines[0].quantity`), and a message that says what would be valid."""

    field: str
    message: str


class ServiceError(Exception):
    """An error that the caller may see.

    `reason` is UPPER_SNAKE and stable, because clients branch on it. `message` is for people and names nothing
    internal. `retry_after` is in seconds, and set if waiting helps. `amounts` are sums of money, by name, that a client
    needs to continue.
    """

    def __init__(
        self,
        code: Code,
        reason: str,
        message: str,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        *,
        amounts: Mapping[str, Money] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.amounts = dict(amounts or {})

    def __repr__(self) -> str:
        return f"ServiceError({self.code.value}, {self.reason}, {self.message!r})"


def invalid(message: str, *violations: tuple[str, str], reason: str = "INVALID_ARGUMENT") -> ServiceError:
    """Make the error of a request that is invalid in any state. `violations` are (field, message) pairs."""
    return ServiceError(Code.INVALID_ARGUMENT, reason, message, [Violation(*v) for v in violations])


def unauthenticated(reason: str, message: str) -> ServiceError:
    """Make the error of a caller without a valid token."""
    return ServiceError(Code.UNAUTHENTICATED, reason, message)


def denied(message: str = "You may not do this.", reason: str = "PERMISSION_DENIED") -> ServiceError:
    """Make the error of an authenticated caller that lacks permission."""
    return ServiceError(Code.PERMISSION_DENIED, reason, message)


def not_found(what: str, reason: str) -> ServiceError:
    """Make the error for an entity that does not exist or is hidden from the caller. `what` is its kind ("Order")."""
    return ServiceError(Code.NOT_FOUND, reason, f"{what} not found.")


def already_exists(reason: str, message: str) -> ServiceError:
    """Make the error of a request to create an entity that exists already."""
    return ServiceError(Code.ALREADY_EXISTS, reason, message)


def failed_precondition(reason: str, message: str) -> ServiceError:
    """Make the error of a valid request that the current state does not allow."""
    return ServiceError(Code.FAILED_PRECONDITION, reason, message)


def exhausted(reason: str, message: str, retry_after: float) -> ServiceError:
    """Make the error of a limit that was exceeded. `retry_after` is in seconds."""
    return ServiceError(Code.RESOURCE_EXHAUSTED, reason, message, retry_after=retry_after)


def aborted(reason: str, message: str, retry_after: float | None = None) -> ServiceError:
    """Make the error of a lost race. The client should read again and repeat the request."""
    return ServiceError(Code.ABORTED, reason, message, retry_after=retry_after)


def unavailable(reason: str, message: str, retry_after: float = 1.0) -> ServiceError:
    """Make the error of a transient failure. `retry_after` is in seconds."""
    return ServiceError(Code.UNAVAILABLE, reason, message, retry_after=retry_after)
