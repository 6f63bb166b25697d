"""The normal form of e-mail addresses, and the keys derived from them."""

from __future__ import annotations

import pytest

from functions.runtime.errors import Code, ServiceError
from functions.users.auth.throttle import client_address_key
from functions.users.emails import account_key, legacy_email, normalise_email


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.Lovelace+Shop@Example.COM ", "ada.lovelace+shop@example.com"),
        ("ada@ｅxample.com", "ada@example.com"),
        ("max@fußball.example", "max@xn--fuball-cta.example"),
        ("MAX@FUẞBALL.example", "max@xn--fuball-cta.example"),
        ("max@βόλος.example", "max@xn--nxasmm1c.example"),
        ("a.d.a+shop@example.com", "a.d.a+shop@example.com"),
        ("ada@shop.local", "ada@shop.local"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
    ],
)
def test_an_address_has_one_form_in_any_spelling(given: str, kept: str) -> None:
    assert normalise_email(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@localhost",
        "ada@example..com",
        "ada@-example.com",
        "ada@example.com-",
        ".ada@example.com",
        "ada..l@example.com",
        "ada l@example.com",
        "ada@exam ple.com",
        "ada@example.com\nbcc: all@example.com",
        "ada\x00@example.com",
        "straße@example.com",
        "ａｄａ@example.com",  # a mail server takes it for another mailbox, or for none
        "\u212aada@example.com",  # the Kelvin sign, whose lower case is k
        "ada@\u2603.example",
        '"ada l"@example.com',
        "Ada <ada@example.com>",
        "ada@[127.0.0.1]",
        "ada@example.com.",
        "аda@example.com",  # its first letter is Cyrillic
        "a" * 65 + "@example.com",
        "ada@" + "a" * 64 + ".com",
        "ada@" + "a.b" * 90 + ".com",
        "ada@127.0.0.1",
        "ada@" + "ü" * 70 + ".com",
    ],
)
def test_an_invalid_address_is_refused_and_not_repeated_in_the_error(given: str) -> None:
    with pytest.raises(ServiceError) as raised:
        normalise_email(given)
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in raised.value.violations] == ["email"]
    assert len(given) < 13 or given not in f"{raised.value!r} {raised.value} {raised.value.violations}"


def test_the_key_of_an_account_is_the_same_in_any_spelling() -> None:
    assert account_key(" ADA@Example.com") == account_key("ada@example.com")
    assert account_key("not an address") != account_key("another")
    assert "example" not in account_key("ada@example.com")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("max@fußball.example", "max@fussball.example"),
        ("MAX@βόλος.example", "max@xn--nxasmq6b.example"),
        ("ａｄａ@example.com", "ada@example.com"),
        ("max@fussball.example", None),
        ("ada@bücher.example", None),
        ("not an address", None),
    ],
)
def test_the_legacy_form_of_an_address_is_known_where_it_differs(given: str, kept: str | None) -> None:
    assert legacy_email(given) == kept


def test_the_key_of_an_ipv6_address_is_that_of_its_network() -> None:
    assert client_address_key("2001:db8:1:2::1") == client_address_key("2001:db8:1:2:ffff::9")
    assert client_address_key("2001:db8:1:2::1") != client_address_key("2001:db8:1:3::1")
    assert client_address_key("::ffff:192.0.2.1") == client_address_key("192.0.2.1")
    assert client_address_key("192.0.2.1") != client_address_key("192.0.2.2")
    assert client_address_key("unknown") == client_address_key("unknown ")
