"""What counts as an e-mail address, a password, a text, a country."""

from __future__ import annotations

import pytest

from functions.runtime.errors import Code, ServiceError
from functions.users.rules import check_password, clean_name, earlier_email, normal_email
from functions.users.store import account_key, address_key


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
def test_an_address_has_one_form_however_it_is_written(given: str, kept: str) -> None:
    assert normal_email(given) == kept


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
def test_what_is_no_address_is_refused_without_repeating_it(given: str) -> None:
    with pytest.raises(ServiceError) as raised:
        normal_email(given)
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in raised.value.violations] == ["email"]
    assert len(given) < 13 or given not in f"{raised.value!r} {raised.value} {raised.value.violations}"


@pytest.mark.parametrize("given", ["0123456", "x" * 9, "x1y2" * 33, "ab" * 300, ""])
def test_a_password_has_10_to_128_characters(given: str) -> None:
    with pytest.raises(ServiceError) as raised:
        check_password(given, "ada@example.com")
    assert raised.value.reason == "WEAK_PASSWORD"
    assert "10 to 128" in raised.value.violations[0].message


@pytest.mark.parametrize(
    "given",
    ["Password123", "qwertyuiop", "1234567890", "aaaaaaaaaaaa", "ada.lovelace", "ada.lovelace@example.com"],
)
def test_a_password_that_is_tried_first_is_refused(given: str) -> None:
    with pytest.raises(ServiceError) as raised:
        check_password(given, "ada.lovelace@example.com", "new_password")
    assert raised.value.reason == "WEAK_PASSWORD"
    assert raised.value.violations[0].field == "new_password"


@pytest.mark.parametrize("given", ["a horse, a kingdom", "x1y2" * 32, "пароль-длинный", "ten chars!"])
def test_other_passwords_are_taken(given: str) -> None:
    check_password(given, "ada@example.com")


@pytest.mark.parametrize("given", ["", "\u3164", "x" * 101, "Ada\r\nBcc: x", "Ada \u202e", "x" * 1_000_000])
def test_a_name_is_a_line_that_can_be_seen(given: str) -> None:
    with pytest.raises(ServiceError) as raised:
        clean_name(given)
    assert raised.value.violations[0].field == "name"


@pytest.mark.parametrize("given", ["  Zoe\u0308 ", "山田　太郎"])
def test_a_name_is_kept_as_it_is_written(given: str) -> None:
    assert clean_name(given) == {"  Zoe\u0308 ": "Zoë"}.get(given, given)


def test_the_key_of_an_account_is_the_same_however_its_address_is_written() -> None:
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
def test_what_earlier_versions_made_of_an_address_is_known_where_it_differs(
    given: str, kept: str | None
) -> None:
    assert earlier_email(given) == kept


def test_the_key_of_an_ipv6_address_is_that_of_its_network() -> None:
    assert address_key("2001:db8:1:2::1") == address_key("2001:db8:1:2:ffff::9")
    assert address_key("2001:db8:1:2::1") != address_key("2001:db8:1:3::1")
    assert address_key("::ffff:192.0.2.1") == address_key("192.0.2.1")
    assert address_key("192.0.2.1") != address_key("192.0.2.2")
    assert address_key("unknown") == address_key("unknown ")
