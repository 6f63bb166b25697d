"""Prices of an order: from requested lines and the catalogue's offers to priced lines and their total. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from events.catalog import Money
from functions.orders.domain import OrderLine
from functions.runtime.currencies import ProviderLimits
from functions.runtime.errors import Code, ServiceError, Violation, invalid
from functions.runtime.formats import MAX_TOTAL


@dataclass(frozen=True)
class RequestedLine:
    """One line of an order as the caller asks for it."""

    product_id: str
    quantity: int


@dataclass(frozen=True)
class Offer:
    """A product as the catalogue offers it at present."""

    product_id: str
    sku: str
    name: str
    price: Money
    active: bool


def price_lines(
    lines: Sequence[RequestedLine], offers: Mapping[str, Offer], provider_limits: ProviderLimits
) -> tuple[list[OrderLine], Money]:
    """Return the lines at the offered prices, and their total.

    Raises:
        InvalidArgument: PRODUCT_UNKNOWN, CURRENCY_MIXED, TOTAL_TOO_LARGE, or TOTAL_NOT_CHARGEABLE for a total outside
            `provider_limits`. The violations name the lines at fault.
        FailedPrecondition: PRODUCT_INACTIVE, likewise.
    """
    unknown = {line.product_id for line in lines} - offers.keys()
    _refuse(lines, unknown, "PRODUCT_UNKNOWN", "is not in the catalogue")
    inactive = {offer.product_id for offer in offers.values() if not offer.active}
    _refuse(lines, inactive, "PRODUCT_INACTIVE", "is not for sale at present")
    currency = offers[lines[0].product_id].price.currency
    foreign = {offer.product_id for offer in offers.values() if offer.price.currency != currency}
    _refuse(lines, foreign, "CURRENCY_MIXED", f"is not priced in {currency} as the first line is")
    total = sum(line.quantity * offers[line.product_id].price.amount for line in lines)
    if total > MAX_TOTAL:
        raise invalid("The order's total is too large.", ("lines", "cost too much"), reason="TOTAL_TOO_LARGE")
    if (problem := provider_limits.total_problem(Money(total, currency))) is not None:
        raise invalid(
            f"{provider_limits.provider} cannot charge this total.",
            ("lines", f"the total's {problem[0]} {problem[1]}"),
            reason="TOTAL_NOT_CHARGEABLE",
        )
    return [_priced(line, offers[line.product_id]) for line in lines], Money(total, currency)


def _priced(line: RequestedLine, offer: Offer) -> OrderLine:
    return OrderLine(line.product_id, line.quantity, offer.price, offer.name, offer.sku)


def _refuse(lines: Sequence[RequestedLine], product_ids: set[str], reason: str, message: str) -> None:
    """Raise a ServiceError that names the lines with one of these products, if there are any."""
    at_fault = [
        Violation(f"lines[{index}].product_id", message)
        for index, line in enumerate(lines)
        if line.product_id in product_ids
    ]
    if at_fault:
        code = Code.FAILED_PRECONDITION if reason == "PRODUCT_INACTIVE" else Code.INVALID_ARGUMENT
        raise ServiceError(code, reason, "Some of the products cannot be ordered.", at_fault)
