"""Translation of ServiceError to a gRPC status and back, with `google.rpc` ErrorInfo, BadRequest and RetryInfo."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status

from events.catalog import Money
from functions.runtime.errors import Code, ServiceError, Violation, invalid, unavailable

log = logging.getLogger("shop.rpc")

DOMAIN = "shop"
_TOO_LARGE_TEXT = "essage larger than max"
STATUS_DETAILS = "grpc-status-details-bin"
_TO_GRPC: dict[Code, grpc.StatusCode] = {code: getattr(grpc.StatusCode, code.value) for code in Code}
_FROM_GRPC = {status: code for code, status in _TO_GRPC.items()} | {
    grpc.StatusCode.UNKNOWN: Code.INTERNAL,
    grpc.StatusCode.CANCELLED: Code.UNAVAILABLE,
    grpc.StatusCode.OUT_OF_RANGE: Code.INVALID_ARGUMENT,
}


def status_code(error: ServiceError) -> grpc.StatusCode:
    """Return the canonical gRPC code of the error."""
    return _TO_GRPC[error.code]


def trailing_metadata(error: ServiceError) -> tuple[tuple[str, bytes], ...]:
    """Return the error as trailing metadata: a `google.rpc.Status` with details."""
    status = Status(code=_TO_GRPC[error.code].value[0], message=error.message)
    amounts = {name: f"{money.amount} {money.currency}" for name, money in error.amounts.items()}
    status.details.append(_pack(details.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=amounts)))
    if error.violations:
        fields = [details.BadRequest.FieldViolation(field=v.field, description=v.message) for v in error.violations]
        status.details.append(_pack(details.BadRequest(field_violations=fields)))
    if error.retry_after is not None:
        info = details.RetryInfo()
        info.retry_delay.FromNanoseconds(int(error.retry_after * 1e9))
        status.details.append(_pack(info))
    return ((STATUS_DETAILS, status.SerializeToString()),)


def from_rpc_error(error: grpc.aio.AioRpcError) -> ServiceError:
    """Return the error that the server raised.

    Transport errors become UNAVAILABLE or DEADLINE_EXCEEDED, with a message that shows nothing internal.
    """
    status = _rich_status(error)
    if status is None:
        return _too_large(error) or _bare(error.code())
    found: dict[str, Any] = {"reason": "UNKNOWN", "violations": [], "retry_after": None, "amounts": {}}
    for detail in status.details:
        _unpack(detail, found)
    code = _FROM_GRPC.get(error.code(), Code.INTERNAL)
    return ServiceError(
        code,
        found["reason"],
        status.message,
        found["violations"],
        found["retry_after"],
        amounts=found["amounts"],
    )


def unreachable() -> ServiceError:
    """Make the error of a service that cannot be reached."""
    return unavailable("SERVICE_UNAVAILABLE", "A part of the platform cannot be reached.")


def _too_large(error: grpc.aio.AioRpcError) -> ServiceError | None:
    """Return the error of a message above the size limit: INTERNAL for a response, INVALID_ARGUMENT for a request.

    gRPC uses one code for both, and for too many calls. A retry does not help for a message that is too large.
    """
    details = error.details() or ""
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or _TOO_LARGE_TEXT not in details:
        return None
    if details.startswith("SERVER"):
        return invalid("The request is too large.", reason="MESSAGE_TOO_LARGE")
    log.error("answer_too_large", extra={"details": details})
    return _internal()


def _bare(status: grpc.StatusCode) -> ServiceError:
    code = _FROM_GRPC.get(status, Code.INTERNAL)
    match code:
        case Code.DEADLINE_EXCEEDED:
            return ServiceError(code, "DEADLINE_EXCEEDED", "The platform did not answer in time.", retry_after=1.0)
        case Code.UNAVAILABLE:
            return unreachable()
        case Code.RESOURCE_EXHAUSTED:
            return ServiceError(code, "TOO_MUCH", "The request is too large or too frequent.", retry_after=1.0)
        case _:
            return _internal()


def _internal() -> ServiceError:
    return ServiceError(Code.INTERNAL, "INTERNAL", "Something went wrong inside the platform.")


def _rich_status(error: grpc.aio.AioRpcError) -> Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            return Status.FromString(value)
    return None


def _unpack(detail: AnyMessage, found: dict[str, Any]) -> None:
    info, bad, retry = details.ErrorInfo(), details.BadRequest(), details.RetryInfo()
    if detail.Unpack(info):
        found["reason"] = info.reason
        found["amounts"] = dict(_amounts(info.metadata))
    elif detail.Unpack(bad):
        found["violations"] = [Violation(v.field, v.description) for v in bad.field_violations]
    elif detail.Unpack(retry):
        found["retry_after"] = retry.retry_delay.ToNanoseconds() / 1e9


def _amounts(metadata: Mapping[str, str]) -> Iterator[tuple[str, Money]]:
    for name, text in metadata.items():
        amount, _, currency = text.partition(" ")
        if amount.isdecimal() and currency:
            yield name, Money(int(amount), currency)


def _pack(message: Any) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
