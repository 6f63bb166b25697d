"""What the OpenAPI document allows, the service behind it takes; what it refuses, the gateway refuses first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events.catalog import Money
from functions.orders import pricing, service
from functions.products.domain import UpdateProduct
from functions.runtime.currencies import SIMULATED
from functions.runtime.errors import ServiceError
from functions.runtime.formats import MAX_LINES, MAX_PRICE, MAX_QUANTITY, MAX_TOTAL
from functions.runtime.tests.support import FakeVerifier
from gateway.app import create_app
from gateway.settings import Settings

SCHEMAS: dict[str, Any] = create_app(Settings(), verifier=FakeVerifier()).openapi()["components"]["schemas"]
PRODUCT = "prd_0190b5a4c1de7c0f8a31d94e5b7c2f60"


def documented(schema: str, field: str) -> dict[str, Any]:
    """The documented schema of a field."""
    found: dict[str, Any] = SCHEMAS[schema]["properties"][field]
    return found


def strings(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    """Strings that a documented pattern and length allow."""
    longest = schema.get("maxLength", 10_000)
    return st.from_regex(schema["pattern"], fullmatch=True).filter(
        lambda text: "\n" not in text and len(text) <= longest
    )


def violations(call: Any) -> list[str]:
    """The fields that a check complains about."""
    try:
        call()
    except ServiceError as error:
        return [violation.field for violation in error.violations]
    return []


def order(token: str, quantity: int = 1) -> service.PlaceOrder:
    return service.PlaceOrder([pricing.RequestedLine(PRODUCT, quantity)], None, token)


@settings(max_examples=50, suppress_health_check=[HealthCheck.filter_too_much])
@given(strings(documented("PlaceOrder", "payment_token")).filter(lambda text: not text[0].isdigit()))
def test_a_payment_token_that_is_documented_is_taken(token: str) -> None:
    assert "payment_token" not in violations(order(token).validated)


@pytest.mark.parametrize("token", ["tok ok", "tok/ok", "tok!", "", "t" * 256])
def test_a_payment_token_that_is_not_documented_is_refused_by_the_service_too(token: str) -> None:
    assert "payment_token" in violations(order(token).validated)


@settings(max_examples=50, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    strings(documented("CreateProduct", "image_urls")["items"]),
    strings(documented("CreateProduct", "category")),
)
def test_a_picture_and_a_category_that_are_documented_are_taken(url: str, category: str) -> None:
    assert violations(UpdateProduct(PRODUCT, image_urls=[url], category=category).validated) == []


def test_the_documented_bounds_of_a_price_are_the_enforced_ones() -> None:
    amount = SCHEMAS["PriceIn"]["properties"]["amount"]
    for value, refused in (
        (amount["minimum"], []),
        (amount["maximum"], []),
        (amount["minimum"] - 1, ["price.amount"]),
        (amount["maximum"] + 1, ["price.amount"]),
    ):
        assert violations(UpdateProduct(PRODUCT, price=Money(value, "EUR")).validated) == refused


def test_the_documented_bounds_of_an_order_line_are_the_enforced_ones() -> None:
    quantity = documented("LineIn", "quantity")
    for value, refused in ((quantity["maximum"], False), (quantity["maximum"] + 1, True)):
        assert ("lines[0].quantity" in violations(lambda value=value: order("t", value).validated())) is refused


def test_a_total_that_could_not_be_read_is_refused() -> None:
    readable = SCHEMAS["Money"]["properties"]["amount"]["maximum"]
    assert readable == MAX_TOTAL < MAX_PRICE * MAX_QUANTITY * MAX_LINES
    price = MAX_TOTAL // MAX_QUANTITY
    offers = {PRODUCT: pricing.Offer(PRODUCT, "MUG-01", "Mug", Money(price, "JPY"), True)}
    _, total = pricing.price_lines([pricing.RequestedLine(PRODUCT, MAX_QUANTITY)], offers, SIMULATED)
    assert total == Money(readable, "JPY")
    offers = {PRODUCT: pricing.Offer(PRODUCT, "MUG-01", "Mug", Money(price + 1, "JPY"), True)}
    with pytest.raises(ServiceError) as refused:
        pricing.price_lines([pricing.RequestedLine(PRODUCT, MAX_QUANTITY)], offers, SIMULATED)
    assert refused.value.reason == "TOTAL_TOO_LARGE"
