"""In production a part starts with good secrets only, and says in one line which one is not."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from events.service_keys import ServiceKeys
from functions.payments.bootstrap import open_provider
from functions.payments.settings import Settings as Payments
from functions.runtime.clock import ManualClock
from functions.runtime.credentials import refuse_weak, secret
from functions.runtime.factories import service_key, service_keys
from functions.runtime.settings import RuntimeSettings, SettingsError, load
from gateway.settings import Settings as Gateway
from knative.setup.secrets import new_key
from tests.architecture import domains

DOMAINS = domains(Path(__file__).parents[1])
# Kubernetes makes and rotates the token for the broker, so nobody can choose a weak one.
LOOKS_SECRET = re.compile(r"(?!broker_token_file$)(\w*_)?(secret|password|key|token)(_file)?$")
GOOD = "vK3qQ0m6Zx_tE8rWcY2p"
BAD = {
    "short": "vK3qQ0m6Zx_tE8",
    "a document's": "a-long-random-secret",
    "a document's, in capitals": "Correct Horse Battery Staple",
    "not filled in": "<the secret goes here>",
    "a template's": "${MAIL_EVENTS_SECRET}",
    "to be changed": "please-change-me-now",
    "repeated": "abcabcabcabcabcabcabc",
}


def settings_of(domain: str) -> type[RuntimeSettings]:
    found: type[RuntimeSettings] = import_module(f"functions.{domain}.settings").Settings
    return found


SECRETS = [(domain, name) for domain in DOMAINS for name in settings_of(domain).SECRETS if name != "service_key"]


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "service.pem"
    path.touch(mode=0o600)
    path.write_bytes(new_key())
    return str(path)


def production(domain: str, key: str, **variables: str) -> RuntimeSettings:
    return load(settings_of(domain), {"SHOP_ENV": "production", "SERVICE_KEY_FILE": key, **variables})


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_setting_that_looks_like_a_secret_is_looked_at(domain: str) -> None:
    settings = settings_of(domain)
    fields = {name.removesuffix("_file") for name in settings.__struct_fields__ if LOOKS_SECRET.match(name)}
    assert fields == set(settings.SECRETS)


def test_the_gateways_key_is_looked_at_and_broker_and_dead_letters_hold_no_secret() -> None:
    """What they would read from now on is to be looked at before their start, too."""
    root = Path(__file__).parents[1]
    fields = {name.removesuffix("_file") for name in Gateway.__struct_fields__ if LOOKS_SECRET.match(name)}
    assert fields == set(Gateway.SECRETS) == {"service_key", "store_password"}
    for part in ("knative/local/broker", "events/dead_letters"):
        read = re.findall(r'environ\b[^"]*"([A-Z_]+)"', (root / f"{part}/__main__.py").read_text())
        assert len(read) > 3
        assert not [name for name in read if LOOKS_SECRET.match(name.lower())]


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize(("domain", "name"), SECRETS)
def test_a_secret_that_is_none_is_refused_by_name_and_not_shown(
    domain: str, name: str, bad: str, key: str, tmp_path: Path
) -> None:
    variable = name.upper()
    given = {variable: bad}
    if f"{name}_file" in settings_of(domain).__struct_fields__:
        variable, given = f"{variable}_FILE", {f"{variable}_FILE": str(tmp_path / "secret")}
        (tmp_path / "secret").write_text(f"{bad}\n")
    with pytest.raises(SettingsError, match=f"^{variable}: ") as refused:
        refuse_weak(production(domain, key, **given))
    assert bad not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("domain", "name"), SECRETS)
def test_a_good_secret_is_taken_and_one_that_is_not_set_is_for_who_needs_it(domain: str, name: str, key: str) -> None:
    refuse_weak(production(domain, key))
    refuse_weak(production(domain, key, **{name.upper(): GOOD}))


@pytest.mark.parametrize(("domain", "name"), SECRETS)
def test_development_takes_any_secret(domain: str, name: str) -> None:
    refuse_weak(load(settings_of(domain), {name.upper(): "x"}))


@pytest.mark.parametrize("path", ["", ".data/secrets/service.pem", "/srv/shop/.data/secrets/service.pem"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_the_key_that_make_up_made_signs_nothing_in_production(domain: str, path: str) -> None:
    with pytest.raises(SettingsError, match=r"^SERVICE_KEY_FILE: in production"):
        refuse_weak(production(domain, path))


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_key_may_be_a_variable_and_then_no_file_is_looked_at(domain: str) -> None:
    settings = production(domain, "/nowhere", SERVICE_KEY=new_key().decode())
    refuse_weak(settings)
    service_key(settings, domain)


@pytest.mark.parametrize("bad", ["not a key, but long enough", new_key().decode()[:60]], ids=["text", "half"])
def test_a_variable_that_holds_no_key_is_refused_by_name_and_not_shown(bad: str) -> None:
    with pytest.raises(SettingsError, match=r"^SERVICE_KEY: no Ed25519 private key") as refused:
        service_key(production("orders", "", SERVICE_KEY=bad), "orders")
    assert bad not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe\x00"])
def test_a_file_that_holds_no_secret_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(SettingsError, match=r"^SERVICE_KEY_FILE: "):
        refuse_weak(production("orders", str(tmp_path / "key")))


@pytest.mark.parametrize(("mode", "warned"), [(0o600, []), (0o640, []), (0o644, ["SERVICE_KEY_FILE"])])
def test_a_file_that_others_may_read_is_warned_of(
    mode: int, warned: list[str], key: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path(key).chmod(mode)
    with caplog.at_level(logging.WARNING, "shop.credentials"):
        refuse_weak(production("orders", key))
    assert [record.variable for record in caplog.records] == warned  # type: ignore[attr-defined] # an extra


def test_what_shows_settings_shows_no_secret(key: str) -> None:
    for domain, name in SECRETS:
        settings = production(domain, key, **{name.upper(): GOOD})
        assert secret(settings, name) == GOOD
        assert GOOD not in f"{settings!r} {settings}"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "PAYMENT_PROVIDER"),
        ({"PAYMENT_PROVIDER": "stripe"}, "STRIPE_API_KEY"),
        ({"PAYMENT_PROVIDER": "stripe", "STRIPE_API_KEY": f"sk_test_{GOOD}"}, "STRIPE_API_KEY"),
    ],
)
def test_production_takes_no_payments_that_charge_nobody(variables: dict[str, str], named: str, key: str) -> None:
    settings = production("payments", key, STORE_URL="memory:", **variables)
    assert isinstance(settings, Payments)
    with pytest.raises(SettingsError, match=f"^{named}: ") as refused:
        open_provider(settings, ManualClock())
    assert GOOD not in str(refused.value)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_process_that_may_not_start_says_why_in_a_line_and_ends_with_one(domain: str, tmp_path: Path) -> None:
    short = tmp_path / "service.pem"
    short.write_text("not a key")
    variables = {
        "SHOP_ENV": "production",
        "SERVICE_KEY_FILE": str(short),
        "STORE_URL": "memory:",
    }
    done = subprocess.run(
        [sys.executable, "-m", f"functions.{domain}.main"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{domain}: SERVICE_KEY_FILE: is too short")
    assert len(done.stderr.splitlines()) == 1
    assert "not a key" not in done.stderr


@pytest.mark.parametrize(
    ("jwks", "said"),
    [
        ("", "FileNotFoundError, cannot read it"),
        ("no JSON", "no JWKS of Ed25519 keys"),
        ('{"keys": []}', "a JWKS without an Ed25519 key"),
        (ServiceKeys({}).with_key("users", bytes(32)).jwks(), "has no key of orders"),
        (
            ServiceKeys({}).with_key("orders", bytes(32)).jwks().replace('"x":"AA', '"x":"BA'),
            "that its id names",
        ),
    ],
)
def test_public_keys_that_are_none_are_refused_by_name(jwks: str, said: str, tmp_path: Path) -> None:
    settings = production("orders", "", SERVICE_KEYS=jwks, SERVICE_KEYS_FILE=str(tmp_path / "nothing"))
    with pytest.raises(SettingsError, match=rf"^SERVICE_KEYS(_FILE)?: .*{said}"):
        service_keys(settings, "orders")
