"""The one error base of the platform: a neutral code, a stable reason, a message for people, field
violations.

Three translators turn it into what the outside sees: `functions.runtime.rpc.errors` (gRPC status with
google.rpc details), `functions.runtime.event_function` (HTTP status of an event function), `gateway.problems` (RFC
9457).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from events.catalog import Money


class Code(Enum):
    """gRPC's canonical codes, as far as the platform uses them."""

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
    """One field at fault: its path (`lines[0].quantity`) and what would be right."""

    field: str
    message: str


class ServiceError(Exception):
    """A failure that a caller may see.

    `reason` is UPPER_SNAKE and stable: clients branch on it. `message` is for people and names nothing
    internal. `retry_after` is in seconds, where waiting helps. `amounts` are sums of money that a client needs to go
    on, by name.
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
    """The request itself is wrong, whatever the state; `violations` are (field, message) pairs."""
    return ServiceError(Code.INVALID_ARGUMENT, reason, message, [Violation(*v) for v in violations])


def unauthenticated(reason: str, message: str) -> ServiceError:
    """Who calls is not known, or cannot be proved."""
    return ServiceError(Code.UNAUTHENTICATED, reason, message)


def denied(message: str = "You may not do this.", reason: str = "PERMISSION_DENIED") -> ServiceError:
    """Who calls is known, and may not."""
    return ServiceError(Code.PERMISSION_DENIED, reason, message)


def not_found(what: str, reason: str) -> ServiceError:
    """`what` as in "Order"; also the answer to someone who must not learn that it exists."""
    return ServiceError(Code.NOT_FOUND, reason, f"{what} not found.")


def already_exists(reason: str, message: str) -> ServiceError:
    """What should be created is there already."""
    return ServiceError(Code.ALREADY_EXISTS, reason, message)


def failed_precondition(reason: str, message: str) -> ServiceError:
    """Right in itself, but not in the present state."""
    return ServiceError(Code.FAILED_PRECONDITION, reason, message)


def exhausted(reason: str, message: str, retry_after: float) -> ServiceError:
    """Too much, too often; `retry_after` in seconds."""
    return ServiceError(Code.RESOURCE_EXHAUSTED, reason, message, retry_after=retry_after)


def aborted(reason: str, message: str, retry_after: float | None = None) -> ServiceError:
    """A race was lost: read again and repeat."""
    return ServiceError(Code.ABORTED, reason, message, retry_after=retry_after)


def unavailable(reason: str, message: str, retry_after: float = 1.0) -> ServiceError:
    """A passing fault; the same request may succeed later."""
    return ServiceError(Code.UNAVAILABLE, reason, message, retry_after=retry_after)
