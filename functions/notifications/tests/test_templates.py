"""Every template renders a readable text."""

from __future__ import annotations

import re
from html import unescape

import pytest
from jinja2 import UndefinedError

from events.catalog import (
    Money,
    OrderCancelled,
    PaymentRefunded,
    UserChallenged,
    UserEmailChanged,
    UserEmailChangeRequested,
    UserPasswordChanged,
)
from functions.notifications import messages, rendering
from functions.notifications.domain import Message
from functions.notifications.tests.shop import ADA, ORDER
from functions.notifications.tests.test_messages import EVENTS, LOW

ALL = [
    messages.welcome(EVENTS[0][0]),  # type: ignore[arg-type] # each entry of the table fits its function
    messages.order_confirmed(EVENTS[1][0]),  # type: ignore[arg-type] # as above
    messages.order_cancelled(EVENTS[2][0]),  # type: ignore[arg-type] # as above
    messages.order_shipped(EVENTS[3][0]),  # type: ignore[arg-type] # as above
    messages.order_delivered(EVENTS[4][0]),  # type: ignore[arg-type] # as above
    messages.payment_refunded(EVENTS[5][0]),  # type: ignore[arg-type] # as above
    messages.stock_low(LOW),
    messages.challenged(UserChallenged(user_id=ADA, purpose="PASSWORD_RESET")),
    messages.challenged(UserChallenged(user_id=ADA, purpose="EMAIL_VERIFICATION")),
    messages.challenged(UserChallenged(user_id=ADA, purpose="PASSWORD_RESET", occasion="REGISTRATION")),
    messages.email_change_requested(UserEmailChangeRequested(user_id=ADA)),
    messages.email_changed(UserEmailChanged(user_id=ADA, change_id="emc_" + "e" * 32)),
    messages.password_changed(UserPasswordChanged(user_id=ADA)),
]


def test_all_templates_are_here_and_each_has_its_folder() -> None:
    assert {message.template for message in ALL} == rendering.TEMPLATES
    assert {folder.name for folder in rendering.FOLDER.iterdir() if folder.is_dir()} == rendering.TEMPLATES


@pytest.mark.parametrize("message", ALL, ids=lambda message: message.template)
def test_a_template_is_rendered_whole(message: Message) -> None:
    subject = rendering.subject(message.template, message.params)
    bodies = [rendering.body(message.template, message.params, token=token) for token in ("", "mt_token")]
    assert subject
    assert "\n" not in subject
    assert ("mt_token" in bodies[1]) == (message.template in rendering.TOKEN_PURPOSES)
    for body in bodies:
        assert body.startswith("Hello,\n\n")
        assert body.endswith("The shop\n")
        assert "{" not in subject + body
        assert "\n\n\n" not in body
        for name, value in message.params.items():
            assert value in subject + body or name == "change_id"
        assert all(len(line) <= 120 for line in body.splitlines())


@pytest.mark.parametrize("message", ALL, ids=lambda message: message.template)
def test_the_html_says_what_the_text_says_and_shows_markup_as_text(message: Message) -> None:
    subject = rendering.subject(message.template, message.params)
    text = rendering.body(message.template, message.params, "<b>Ada</b> & co", "mt_token")
    page = rendering.html(subject, text)
    assert "<b>Ada" not in page
    words = unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", page.partition("<body")[2].partition(">")[2]))
    assert words.split() == [*subject.split(), *text.split()]


def test_a_missing_parameter_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        rendering.body("order_confirmed", {})


def test_a_name_is_text_and_nothing_else() -> None:
    body = rendering.body("welcome", {}, "{{ 7 * 7 }}\r\nBcc: <b>x</b>")
    assert body.startswith("Hello {{ 7 * 7 }} Bcc: <b>x</b>,\n")


@pytest.mark.parametrize(
    ("money", "text"),
    [
        (Money(5, "EUR"), "0.05 EUR"),
        (Money(123456789, "USD"), "1,234,567.89 USD"),
        (Money(1500, "JPY"), "1,500 JPY"),
        (Money(1500, "KWD"), "1.500 KWD"),
        (Money(0, "EUR"), "0.00 EUR"),
    ],
)
def test_amounts_have_as_many_decimals_as_their_currency(money: Money, text: str) -> None:
    assert rendering.amount(money) == text


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("OUT_OF_STOCK", "not enough of it is in stock"),
        ("CUSTOMER_REQUEST", "as you asked"),
    ],
)
def test_a_cancellation_says_why_in_words(reason: str, words: str) -> None:
    message = messages.order_cancelled(OrderCancelled(order_id=ORDER, user_id=ADA, reason=reason))
    assert f"is cancelled: {words}." in rendering.body(message.template, message.params)


def test_a_reason_that_may_be_a_customers_own_words_is_left_out() -> None:
    event = OrderCancelled(order_id=ORDER, user_id=ADA, reason="WIN_1000_EUR_AT_EVIL_EXAMPLE")
    message = messages.order_cancelled(event)
    assert f"your order {ORDER} is cancelled.\n" in rendering.body(message.template, message.params)


def test_a_partial_refund_says_what_went_back_in_all() -> None:
    event = PaymentRefunded(
        order_id=ORDER,
        user_id=ADA,
        payment_id="pay_" + "a" * 32,
        refund_id="ref_" + "a" * 32,
        amount=Money(500, "EUR"),
        refunded=Money(1500, "EUR"),
    )
    message = messages.payment_refunded(event)
    body = rendering.body(message.template, message.params)
    assert "with what went back before, that is 15.00 EUR." in body
