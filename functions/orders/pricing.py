"""Pure functions that price an order: requested lines and catalogue offers give priced lines and a total."""

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
    """One order line that the caller requests."""

    product_id: str
    quantity: int


@dataclass(frozen=True)
class Offer:
    """A product with its current price in the catalogue."""

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
            `provider_limits`. The violations name the invalid lines.
        FailedPrecondition: PRODUCT_INACTIVE. The violations name the inactive lines.
    """
    first = offers.get(lines[0].product_id)
    currency = first.price.currency if first else ""
    unknown, inactive, foreign = list[int](), list[int](), list[int]()
    priced, total = list[OrderLine](), 0
    for index, line in enumerate(lines):
        offer = offers.get(line.product_id)
        if offer is None:
            unknown.append(index)
            continue
        if not offer.active:
            inactive.append(index)
        if offer.price.currency != currency:
            foreign.append(index)
        total += line.quantity * offer.price.amount
        priced.append(OrderLine(line.product_id, line.quantity, offer.price, offer.name, offer.sku))
    _refuse(unknown, "PRODUCT_UNKNOWN", "is not in the catalogue")
    _refuse(inactive, "PRODUCT_INACTIVE", "is not for sale at present")
    _refuse(foreign, "CURRENCY_MIXED", f"is not priced in {currency} as the first line is")
    if total > MAX_TOTAL:
        raise invalid("The order's total is too large.", ("lines", "cost too much"), reason="TOTAL_TOO_LARGE")
    if (problem := provider_limits.total_problem(Money(total, currency))) is not None:
        raise invalid(
            f"{provider_limits.provider} cannot charge this total.",
            ("lines", f"the total's {problem[0]} {problem[1]}"),
            reason="TOTAL_NOT_CHARGEABLE",
        )
    return priced, Money(total, currency)


def _refuse(at_fault: Sequence[int], reason: str, message: str) -> None:
    """Raise a ServiceError that names the lines with these indexes, if there are any."""
    if at_fault:
        code = Code.FAILED_PRECONDITION if reason == "PRODUCT_INACTIVE" else Code.INVALID_ARGUMENT
        violations = [Violation(f"lines[{index}].product_id", message) for index in at_fault]
        raise ServiceError(code, reason, "Some of the products cannot be ordered.", violations)
