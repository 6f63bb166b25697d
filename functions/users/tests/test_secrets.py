"""No repr, error or log line contains a secret or personal data."""

from __future__ import annotations

import logging

import pytest

from functions.runtime.errors import ServiceError
from functions.runtime.identity import Identity
from functions.runtime.settings import load
from functions.users.auth.tokens import parse_refresh_token
from functions.users.domain import Address, AddressBook, Credentials, Session
from functions.users.emails import account_key
from functions.users.service import RegisterUser, UpdateUser
from functions.users.settings import Settings
from functions.users.tests.accounts import PASSWORD, Accounts

EMAIL, NAME = "ada.lovelace@example.com", "Augusta Ada King"


async def test_reprs_contain_neither_secrets_nor_personal_data(accounts: Accounts) -> None:
    user = await accounts.register(EMAIL, name=NAME)
    tokens = await accounts.login(EMAIL)
    parsed = parse_refresh_token(tokens.refresh_token, 0)
    assert parsed
    home = await accounts.add_address(user, Address(NAME, "1 Engine Street", "London", "N1 9GU", "GB"))
    credentials = await accounts.store.get(Credentials, user.id)
    session = await accounts.store.get(Session, parsed.session_id)
    book = await accounts.store.get(AddressBook, user.id)
    keys = await accounts.keys.ensure()
    assert credentials
    assert session
    shown = repr([user, credentials, session, book, home, keys, keys.current, tokens, vars(accounts).values()])
    shown += repr([RegisterUser(EMAIL, PASSWORD, NAME), UpdateUser("usr_x", NAME, EMAIL)])
    for secret in (
        EMAIL,
        NAME,
        "Engine Street",
        PASSWORD,
        credentials.password_hash,
        session.token_digest,
        tokens.access_token,
        tokens.refresh_token,
        keys.current.private,
        keys.upcoming.private,
    ):
        assert secret not in shown, secret


def test_settings_do_not_show_the_password_of_the_administrator() -> None:
    settings = load(Settings, {"ADMIN_EMAIL": EMAIL, "ADMIN_PASSWORD": PASSWORD})
    assert settings.admin_password == PASSWORD
    assert PASSWORD not in f"{settings} {settings!r} {[settings]!r}"
    assert EMAIL not in repr(settings)


async def test_logs_and_errors_identify_accounts_by_id_only(
    accounts: Accounts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    user = await accounts.register(EMAIL, name=NAME)
    first = await accounts.login(EMAIL, address="192.0.2.1")
    second = await accounts.refresh(first.refresh_token)
    errors = []
    for use in (
        accounts.register(EMAIL, name=NAME),
        accounts.login(EMAIL, "not the password"),
        accounts.refresh(first.refresh_token),
        accounts.refresh(second.refresh_token),
        accounts.update(user, email=f"{EMAIL}@"),
        accounts.change_password(user, "not the password", "another fine password"),
        accounts.change_password(user, PASSWORD, EMAIL),
    ):
        with pytest.raises(ServiceError) as raised:
            await use
        errors.append((repr(raised.value), raised.value.message, raised.value.violations))
    await accounts.logout(first)
    await accounts.delete(user)
    shown = repr([vars(record) for record in caplog.records]) + repr(errors)
    assert user.id in shown
    for secret in (
        EMAIL,
        NAME,
        PASSWORD,
        "192.0.2.1",
        first.access_token,
        first.refresh_token,
        second.refresh_token,
    ):
        assert secret not in shown, secret


async def test_a_failed_attempt_is_stored_without_the_address(accounts: Accounts) -> None:
    with pytest.raises(ServiceError):
        await accounts.login(EMAIL, "not the password", "192.0.2.1")
    kept = str(accounts.memory.__dict__)
    assert "failures" in kept
    for named in (EMAIL, account_key(EMAIL), "192.0.2.1"):
        assert named not in kept


async def test_an_identity_does_not_show_its_token() -> None:
    assert "secret" not in repr(Identity("usr_x", frozenset(), "secret"))
