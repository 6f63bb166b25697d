"""What each provider charges: every currency that is sold, and the amounts at its edges."""

from __future__ import annotations

import pytest

from events.catalog import Money
from functions.runtime.currencies import CURRENCIES, PROVIDERS, SIMULATED, exponent

STRIPE = PROVIDERS["stripe"]


@pytest.mark.parametrize("currency", sorted(CURRENCIES))
@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_an_amount_that_a_provider_takes_comes_back_as_it_went(provider: str, currency: str) -> None:
    limits = PROVIDERS[provider]
    for amount in (100, 1000, 123_000, 98_765_400):
        money = Money(amount, currency)
        if limits.price_problem(money) is None:
            assert limits.from_provider(limits.to_provider(money), currency) == money


@pytest.mark.parametrize(
    ("money", "units"),
    [
        (Money(199_900, "MGA"), 1999),
        (Money(1999, "JPY"), 1999),
        (Money(1999, "ISK"), 199_900),
        (Money(1999, "UGX"), 199_900),
        (Money(5120, "KWD"), 5120),
        (Money(1999, "HUF"), 1999),
        (Money(1999, "TWD"), 1999),
        (Money(1999, "EUR"), 1999),
    ],
    ids=str,
)
def test_stripes_units_are_not_isos(money: Money, units: int) -> None:
    assert STRIPE.to_provider(money) == units
    assert STRIPE.from_provider(units, money.currency) == money


@pytest.mark.parametrize(
    ("price", "part", "message"),
    [
        (Money(199_950, "MGA"), "amount", "must be a multiple of 100 for Stripe to charge it in MGA"),
        (Money(5124, "KWD"), "amount", "must be a multiple of 10 for Stripe to charge it in KWD"),
        (Money(100_000_000, "EUR"), "amount", "must be at most 99999999, what Stripe charges in EUR"),
        (Money(1_000_000, "ISK"), "amount", "must be at most 999999, what Stripe charges in ISK"),
        (Money(1000, "IQD"), "currency", "is not a currency that Stripe charges"),
    ],
    ids=str,
)
def test_a_price_that_stripe_cannot_charge_is_told_what_would_be_right(price: Money, part: str, message: str) -> None:
    assert STRIPE.price_problem(price) == (part, message)
    assert STRIPE.total_problem(price) == (part, message)
    with pytest.raises(ValueError, match=message):
        STRIPE.to_provider(price)
    assert SIMULATED.price_problem(price) is None


@pytest.mark.parametrize(("amount", "currency"), [(49, "EUR"), (29, "GBP"), (17_499, "HUF"), (49, "JPY")])
def test_a_minimum_holds_for_a_total_and_neither_for_a_unit_price_nor_for_a_refund(amount: int, currency: str) -> None:
    money, least = Money(amount, currency), Money(amount + 1, currency)
    message = f"must be at least {amount + 1}, what Stripe charges in {currency}"
    assert STRIPE.total_problem(money) == ("amount", message)
    assert STRIPE.total_problem(least) is None
    assert STRIPE.price_problem(money) is None
    assert STRIPE.refund_problem(money) is None


def test_a_total_of_nothing_is_not_charged_and_so_not_refused() -> None:
    assert STRIPE.total_problem(Money(0, "EUR")) is None
    assert STRIPE.refund_problem(Money(0, "EUR")) is not None


def test_what_is_smaller_than_a_minor_unit_is_rounded() -> None:
    assert [STRIPE.from_provider(units, "ISK").amount for units in (149, 150, 200)] == [1, 2, 2]


def test_three_currencies_have_another_exponent_at_stripe() -> None:
    shared = CURRENCIES & STRIPE.limits.keys()
    other = {code for code in shared if STRIPE.limits[code].exponent != exponent(code)}
    assert other == {"ISK", "MGA", "UGX"}
