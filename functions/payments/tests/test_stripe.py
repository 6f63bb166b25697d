"""Stripe with lost requests, lost answers and errors: a repeated key finds out, and money moves once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from events.catalog import Money
from functions.payments.bootstrap import open_provider, open_webhook
from functions.payments.metrics import PROVIDER_ERRORS
from functions.payments.providers import stripe_provider
from functions.payments.providers.port import ChargeOutcome, RefundOutcome
from functions.payments.providers.stripe_api import LIMITS, StripeRefused
from functions.payments.providers.stripe_provider import StripeProvider
from functions.payments.settings import Settings
from functions.payments.tests.fake_stripe import API_KEY, FakeStripe
from functions.runtime.clock import ManualClock
from functions.runtime.currencies import CURRENCIES, exponent
from functions.runtime.errors import Code, ServiceError
from functions.runtime.settings import SettingsError, load
from functions.runtime.store.memory import MemoryStore

TEN = Money(1000, "EUR")
# Stripe's lists, as it prints them: docs.stripe.com/currencies. Its special cases ISK and UGX are in hundredths.
ZERO_DECIMAL = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"
THREE_DECIMAL = "BHD JOD KWD OMR TND"


@pytest.fixture
async def stripe() -> AsyncIterator[FakeStripe]:
    async with FakeStripe().serve() as fake:
        yield fake


@pytest.fixture
async def provider(stripe: FakeStripe) -> AsyncIterator[StripeProvider]:
    adapter = stripe.provider()
    yield adapter
    await adapter.close()


async def unavailable(call: Awaitable[Any]) -> ServiceError:
    with pytest.raises(ServiceError) as raised:
        await call
    assert (raised.value.code, raised.value.reason) == (Code.UNAVAILABLE, "PAYMENT_PROVIDER_UNAVAILABLE")
    return raised.value


async def test_the_idempotency_keys_are_ours(stripe: FakeStripe, provider: StripeProvider) -> None:
    await provider.charge("pay_1", TEN, "tok_ok")
    await provider.refund("ref_1", "pay_1", TEN)
    assert stripe.keys == ["pay_1", "pay_1:confirm", "ref_1"]


@pytest.mark.parametrize("lost", [["before"], ["after"], ["", "before"], ["", "after"]])
async def test_a_charge_is_made_once_by_its_key_whatever_is_lost(
    stripe: FakeStripe, provider: StripeProvider, lost: list[str]
) -> None:
    stripe.faults = lost
    await unavailable(provider.charge("k", TEN, "tok_ok"))
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.CAPTURED
    assert (stripe.net, len(stripe.intents)) == (1000, 1)


async def test_a_decline_whose_answer_was_lost_is_found_again(stripe: FakeStripe, provider: StripeProvider) -> None:
    stripe.faults = ["", "after"]
    await unavailable(provider.charge("k", TEN, "tok_insufficient_funds"))
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.INSUFFICIENT_FUNDS
    assert stripe.net == 0


async def test_another_process_continues_where_one_was_killed(stripe: FakeStripe) -> None:
    clock = ManualClock()
    store = MemoryStore(stripe_provider.MAPPINGS, clock)
    first, second = stripe.provider(store, clock), stripe.provider(store, clock)
    stripe.faults = ["", "after"]
    await unavailable(first.charge("k", TEN, "tok_ok"))
    assert await second.charge("k", TEN, "tok_ok") is ChargeOutcome.CAPTURED
    assert stripe.count("/confirm") == 1
    await first.close()
    await second.close()


async def test_a_void_between_intent_and_charge_makes_the_charge_impossible(
    stripe: FakeStripe, provider: StripeProvider
) -> None:
    stripe.faults = ["", "before"]
    await unavailable(provider.charge("k", TEN, "tok_ok"))
    assert await provider.void("k") is ChargeOutcome.VOIDED
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.VOIDED
    assert [intent["status"] for intent in stripe.intents.values()] == ["canceled"]


async def test_a_void_while_the_intent_is_being_made_makes_the_charge_impossible(
    stripe: FakeStripe, provider: StripeProvider
) -> None:
    stripe.faults = ["after"]
    await unavailable(provider.charge("k", TEN, "tok_ok"))
    assert await provider.void("k") is ChargeOutcome.VOIDED
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.VOIDED
    assert (stripe.net, stripe.count("/confirm")) == (0, 0)


async def test_a_void_after_a_charge_whose_answer_was_lost_returns_its_outcome(
    stripe: FakeStripe, provider: StripeProvider
) -> None:
    stripe.faults = ["", "after"]
    await unavailable(provider.charge("k", TEN, "tok_ok"))
    assert await provider.void("k") is ChargeOutcome.CAPTURED
    assert await provider.refund("r", "k", TEN) is RefundOutcome.SUCCEEDED
    assert stripe.net == 0


@pytest.mark.parametrize(
    "status",
    [
        "401",
        "403",
        "409",
        "424",
        "429",
        "500",
        "503",
        "400/invalid_request_error/rate_limit/",
        "400/idempotency_error//",
        "400/invalid_request_error/parameter_unknown/confirm_with",
        "400/invalid_request_error/testmode_charges_only/",
        "409/invalid_request_error/lock_timeout/",
        "403/invalid_request_error//payment_method",
    ],
)
async def test_transient_and_configuration_errors_are_retried_later(
    stripe: FakeStripe, provider: StripeProvider, status: str
) -> None:
    for faults in ([status], ["", status]):
        stripe.faults = faults
        await unavailable(provider.charge("k", TEN, "tok_ok"))
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.CAPTURED
    assert stripe.net == 1000


@pytest.mark.parametrize(
    "fault",
    [
        "400/invalid_request_error//",
        "400/invalid_request_error/payment_method_unactivated/",
        "400/invalid_request_error/resource_missing/payment_method",
        "400/invalid_request_error/livemode_mismatch/payment_method",
        "404/invalid_request_error/resource_missing/confirmation_token",
        "402/card_error/expired_card/",
        "422/invalid_request_error//",
    ],
)
async def test_any_other_final_answer_below_500_to_a_confirmation_is_a_decline(
    stripe: FakeStripe, provider: StripeProvider, fault: str
) -> None:
    stripe.faults = ["", fault]
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.PAYMENT_DECLINED
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.PAYMENT_DECLINED
    assert await provider.void("k") is ChargeOutcome.PAYMENT_DECLINED
    assert stripe.net == 0


async def test_a_refusal_because_another_process_has_confirmed_is_no_decline(
    stripe: FakeStripe, provider: StripeProvider
) -> None:
    stripe.faults = ["", "after"]
    await unavailable(provider.charge("k", TEN, "tok_ok"))
    api = provider._api
    assert (await api.intent("pi_1")).outcome is ChargeOutcome.CAPTURED
    with pytest.raises(StripeRefused):
        await api.confirm("pi_1", "another", "tok_ok")
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.CAPTURED


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("401", "configuration"),
        ("403", "configuration"),
        ("400/idempotency_error//", "configuration"),
        ("400/invalid_request_error/secret_key_required/", "configuration"),
        ("429", "rate_limited"),
        ("409/invalid_request_error/lock_timeout/", "unavailable"),
        ("500", "unavailable"),
    ],
)
async def test_configuration_errors_are_counted_separately_for_the_alert(
    stripe: FakeStripe, provider: StripeProvider, fault: str, kind: str
) -> None:
    def counted() -> dict[str, float]:
        kinds = ("configuration", "rate_limited", "unavailable")
        return {name: PROVIDER_ERRORS.labels(name)._value.get() for name in kinds}

    before = counted()
    stripe.faults = ["", fault]
    await unavailable(provider.charge("k", TEN, "tok_ok"))
    assert {name: after - before[name] for name, after in counted().items() if after != before[name]} == {kind: 1}


async def test_the_library_tries_again_at_once_with_the_same_key(stripe: FakeStripe) -> None:
    provider = stripe.provider(retries=1)
    stripe.faults = ["", "after"]
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.CAPTURED
    assert stripe.keys == ["k", "k:confirm", "k:confirm"]
    assert stripe.net == 1000
    await provider.close()


async def test_a_call_ends_at_its_timeout(stripe: FakeStripe) -> None:
    provider = stripe.provider(seconds=0.3)
    await provider.charge("warm", TEN, "tok_ok")
    stripe.faults = ["", "late"]
    await unavailable(provider.charge("k", TEN, "tok_ok"))
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.CAPTURED
    assert stripe.net == 2000
    await provider.close()


async def test_a_charge_in_progress_is_read_again_and_cannot_be_voided(
    stripe: FakeStripe, provider: StripeProvider
) -> None:
    stripe.confirmed_status = "processing"
    await unavailable(provider.charge("k", TEN, "tok_ok"))
    await unavailable(provider.void("k"))
    await unavailable(provider.charge("k", TEN, "tok_ok"))
    assert stripe.count("/confirm") == 1
    stripe.intents["pi_1"]["status"] = "succeeded"
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.CAPTURED


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_refund_whose_answer_was_lost_is_made_once_even_when_stripe_forgot_the_key(
    stripe: FakeStripe, provider: StripeProvider, forgotten: bool
) -> None:
    await provider.charge("k", TEN, "tok_ok")
    stripe.faults = ["after"]
    await unavailable(provider.refund("r", "k", Money(400, "EUR")))
    if forgotten:
        stripe._answers.clear()
    assert await provider.refund("r", "k", Money(400, "EUR")) is RefundOutcome.SUCCEEDED
    assert stripe.net == 600


@pytest.mark.parametrize(
    ("later", "outcome"), [("succeeded", RefundOutcome.SUCCEEDED), ("failed", RefundOutcome.REFUSED)]
)
async def test_a_pending_refund_is_read_again(
    stripe: FakeStripe, provider: StripeProvider, later: str, outcome: RefundOutcome
) -> None:
    await provider.charge("k", TEN, "tok_ok")
    stripe.refund_status = "pending"
    await unavailable(provider.refund("r", "k", TEN))
    await unavailable(provider.refund("r", "k", TEN))
    stripe.refunds["re_1"]["status"] = later
    assert await provider.refund("r", "k", TEN) is outcome
    assert len(stripe.refunds) == 1


async def test_the_circuit_opens_after_five_failures_of_stripe(stripe: FakeStripe, provider: StripeProvider) -> None:
    stripe.faults = ["500"] * 5
    for _ in range(5):
        await unavailable(provider.charge("k", TEN, "tok_ok"))
    error = await unavailable(provider.charge("k", TEN, "tok_ok"))
    assert error.retry_after is not None
    assert error.retry_after > 10
    assert len(stripe.requests) == 5


async def test_declines_do_not_count_as_failures_of_stripe(stripe: FakeStripe, provider: StripeProvider) -> None:
    for number in range(6):
        await provider.charge(f"d{number}", TEN, "tok_declined")
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.CAPTURED


@pytest.mark.parametrize(
    ("token", "parameters"),
    [
        ("pm_card_visa", {"payment_method": "pm_card_visa"}),
        ("ctoken_1", {"confirmation_token": "ctoken_1"}),
    ],
)
async def test_each_kind_of_token_has_its_own_parameter(
    stripe: FakeStripe, provider: StripeProvider, token: str, parameters: dict[str, str]
) -> None:
    await provider.charge("k", TEN, token)
    _, _, form = stripe.requests[1]
    assert form == {**parameters, "error_on_requires_action": "true"}


@pytest.mark.parametrize(("currency", "amount"), [("EUR", "1000"), ("JPY", "1000"), ("ISK", "100000")])
async def test_amounts_are_in_the_units_that_stripe_takes(
    stripe: FakeStripe, provider: StripeProvider, currency: str, amount: str
) -> None:
    await provider.charge("k", Money(1000, currency), "tok_ok")
    _, _, form = stripe.requests[0]
    assert (form["amount"], form["currency"]) == (amount, currency.lower())


@pytest.mark.parametrize(
    "amount", [Money(1, "EUR"), Money(1005, "KWD"), Money(199_950, "MGA"), Money(1000, "IQD")], ids=str
)
async def test_an_amount_that_stripe_does_not_take_is_refused_as_not_chargeable(
    provider: StripeProvider, amount: Money
) -> None:
    for _ in range(2):
        assert await provider.charge("k", amount, "tok_ok") is ChargeOutcome.AMOUNT_NOT_CHARGEABLE


@pytest.mark.parametrize("currency", sorted(CURRENCIES))
async def test_every_currency_that_is_sold_is_charged_and_given_back_in_full(
    stripe: FakeStripe, provider: StripeProvider, currency: str
) -> None:
    price = Money(20_000 * 10 ** exponent(currency), currency)
    if (problem := LIMITS.price_problem(price)) is not None:
        assert problem == ("currency", "is not a currency that Stripe charges")  # products refuses the price
        return
    assert await provider.charge("k", price, "tok_ok") is ChargeOutcome.CAPTURED
    (intent,) = stripe.intents.values()
    decimals = 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2
    assert intent["amount"] == 20_000 * 10**decimals
    assert LIMITS.from_provider(intent["amount"], currency) == price
    assert await provider.refund("r", "k", price) is RefundOutcome.SUCCEEDED
    assert stripe.net == 0


async def test_neither_key_nor_token_is_shown_or_logged(
    stripe: FakeStripe, provider: StripeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="shop")
    for fault in ("500", "401", "before"):
        stripe.faults = [fault]
        error = await unavailable(provider.charge("k", TEN, "tok_opensesame"))
        assert "opensesame" not in repr(error)
        assert error.__cause__ is None
    await provider.charge("k", TEN, "tok_opensesame")
    assert caplog.text
    assert "opensesame" not in caplog.text
    assert "opensesame" not in repr(Settings(stripe_api_key=API_KEY, stripe_webhook_secret=API_KEY))


def settings(**environ: str) -> Settings:
    return load(Settings, {"PAYMENT_PROVIDER": "stripe", "STORE_URL": "memory:", **environ})


async def test_settings_choose_stripe_and_its_key_may_be_in_a_file(tmp_path: Path, stripe: FakeStripe) -> None:
    file = tmp_path / "key"
    file.write_text(API_KEY + "\n")
    chosen = settings(STRIPE_API_KEY_FILE=str(file), STRIPE_API_BASE=stripe.base)
    provider = open_provider(chosen, ManualClock())
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.CAPTURED
    await provider.close()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "STRIPE_API_KEY: is needed"),
        ({"STRIPE_API_KEY_FILE": "/nowhere/opensesame"}, "STRIPE_API_KEY_FILE: FileNotFoundError"),
        ({"STRIPE_API_KEY_FILE": "/dev/null"}, "STRIPE_API_KEY_FILE: is empty"),
        ({"STRIPE_API_KEY": "opensesame", "STRIPE_API_BASE": "api"}, "STRIPE_API_BASE: "),
    ],
)
def test_invalid_settings_are_refused_by_name(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as raised:
        open_provider(settings(**environ), ManualClock())
    assert "opensesame" not in str(raised.value)


def test_the_webhook_exists_if_its_secret_is_set() -> None:
    assert open_webhook(settings()) is None
    assert open_webhook(settings(STRIPE_WEBHOOK_SECRET="whsec_1")) is not None
    assert open_webhook(load(Settings, {"STRIPE_WEBHOOK_SECRET": "whsec_1"})) is None
