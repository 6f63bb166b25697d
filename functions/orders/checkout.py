"""What a new order must satisfy, and what it costs: from a request to priced lines. Pure, like domain.py."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from events.catalog import Money
from functions.orders.domain import OrderLine
from functions.runtime.addresses import PostalAddress, normalise
from functions.runtime.currencies import CURRENCIES, SIMULATED, ProviderLimits
from functions.runtime.errors import Code, ServiceError, Violation, invalid
from functions.runtime.formats import MAX_LINES, MAX_QUANTITY, MAX_TOTAL, PAYMENT_TOKEN
from functions.runtime.idempotency import wrong_key

_PRODUCT_ID = re.compile(r"prd_[0-9a-f]{32}")
_TOKEN = re.compile(PAYMENT_TOKEN)
_CARD_NUMBER = re.compile(r"(?:\d[ .:_-]*){12,19}")


@dataclass(frozen=True)
class Item:
    """One line as asked for."""

    product_id: str
    quantity: int


@dataclass(frozen=True)
class Placement:
    """An order as asked for. `fingerprint` stands for all but the key: it tells replay from reuse.

    `expected_total` is the sum that the customer was shown; None where nobody says. `client_address` is where the
    request comes from, empty where that is not known.
    """

    items: Sequence[Item]
    address: PostalAddress | None = field(repr=False)
    payment_token: str = field(repr=False)
    key: str | None = None
    fingerprint: str = ""
    expected_total: Money | None = None
    client_address: str = field(default="", repr=False)


@dataclass(frozen=True)
class Offer:
    """A product as the catalogue offers it at this moment."""

    product_id: str
    sku: str
    name: str
    price: Money
    active: bool


def validate(placement: Placement) -> Placement:
    """Return the placement with its address as it is kept.

    Raises:
        InvalidArgument: with everything that is wrong, by the paths of the JSON body.
    """
    address, wrong = placement.address, [("shipping_address", "is required")]
    if address is not None:
        address, wrong = normalise(address, "shipping_address")
    found = [
        *_wrong_items(placement.items),
        *wrong,
        *_wrong_token(placement.payment_token),
        *wrong_key(placement.key),
        *_wrong_expectation(placement.expected_total),
    ]
    if found:
        raise invalid("The order is not valid.", *found)
    return replace(placement, address=address)


def require_expected(expected: Money | None, total: Money) -> None:
    """Raise FAILED_PRECONDITION (PRICE_CHANGED), with both sums, where the customer was shown another sum."""
    if expected is not None and expected != total:
        raise ServiceError(
            Code.FAILED_PRECONDITION,
            "PRICE_CHANGED",
            "The prices have changed: look at the new total and order again.",
            amounts={"expected_total": expected, "total": total},
        )


def price(
    items: Sequence[Item], offers: Mapping[str, Offer], limits: ProviderLimits = SIMULATED
) -> tuple[list[OrderLine], Money]:
    """The lines at the offered prices, and their sum, which is within the payment provider's `limits`.

    Raises INVALID_ARGUMENT (PRODUCT_UNKNOWN, CURRENCY_MIXED, TOTAL_TOO_LARGE, TOTAL_NOT_CHARGEABLE) and
    FAILED_PRECONDITION (PRODUCT_INACTIVE), each naming the lines at fault.
    """
    _refuse(
        items,
        {item.product_id for item in items} - offers.keys(),
        "PRODUCT_UNKNOWN",
        "is not in the catalogue",
    )
    inactive = {offer.product_id for offer in offers.values() if not offer.active}
    _refuse(items, inactive, "PRODUCT_INACTIVE", "is not for sale at present")
    currency = offers[items[0].product_id].price.currency
    foreign = {offer.product_id for offer in offers.values() if offer.price.currency != currency}
    _refuse(items, foreign, "CURRENCY_MIXED", f"is not priced in {currency} as the first line is")
    total = sum(item.quantity * offers[item.product_id].price.amount for item in items)
    if total > MAX_TOTAL:
        raise invalid("The order's total is too large.", ("lines", "cost too much"), reason="TOTAL_TOO_LARGE")
    if (problem := limits.total_problem(Money(total, currency))) is not None:
        raise invalid(
            f"{limits.provider} cannot charge this total.",
            ("lines", f"the total's {problem[0]} {problem[1]}"),
            reason="TOTAL_NOT_CHARGEABLE",
        )
    return [_line(item, offers[item.product_id]) for item in items], Money(total, currency)


def _line(item: Item, offer: Offer) -> OrderLine:
    return OrderLine(item.product_id, item.quantity, offer.price, offer.name, offer.sku)


def _refuse(items: Sequence[Item], products: set[str], reason: str, message: str) -> None:
    at_fault = [
        Violation(f"lines[{index}].product_id", message)
        for index, item in enumerate(items)
        if item.product_id in products
    ]
    if at_fault:
        code = Code.FAILED_PRECONDITION if reason == "PRODUCT_INACTIVE" else Code.INVALID_ARGUMENT
        raise ServiceError(code, reason, "Some of the products cannot be ordered.", at_fault)


def _wrong_items(items: Sequence[Item]) -> Iterator[tuple[str, str]]:
    if not 1 <= len(items) <= MAX_LINES:
        yield "lines", f"must have 1 to {MAX_LINES} entries"
        return
    seen: set[str] = set()
    for index, item in enumerate(items):
        if not _PRODUCT_ID.fullmatch(item.product_id):
            yield f"lines[{index}].product_id", "must be a product's id"
        elif item.product_id in seen:
            yield f"lines[{index}].product_id", "is listed before: add up the quantities"
        seen.add(item.product_id)
        if not 1 <= item.quantity <= MAX_QUANTITY:
            yield f"lines[{index}].quantity", f"must be between 1 and {MAX_QUANTITY}"


def _wrong_token(token: str) -> Iterator[tuple[str, str]]:
    if _CARD_NUMBER.fullmatch(token):
        yield "payment_token", "must be a provider's token, never a card number"
    elif not _TOKEN.fullmatch(token):
        yield "payment_token", "must be 1 to 255 letters, digits, or any of _ . : -"


def _wrong_expectation(expected: Money | None) -> Iterator[tuple[str, str]]:
    if expected is None:
        return
    if not 0 <= expected.amount <= MAX_TOTAL:
        yield "expected_total.amount", f"must be between 0 and {MAX_TOTAL}, in minor units"
    if expected.currency not in CURRENCIES:
        yield "expected_total.currency", "must be a currency code of ISO 4217, such as EUR"
