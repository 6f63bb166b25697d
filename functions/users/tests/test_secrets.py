"""Nothing secret, and nothing that names a person, shows in a repr, an error or a log line."""

from __future__ import annotations

import logging

import pytest

from functions.runtime.errors import ServiceError
from functions.runtime.identity import Identity
from functions.runtime.settings import load
from functions.users import addresses, service, sessions
from functions.users.domain import Address, AddressBook, Credentials, Session
from functions.users.settings import Settings
from functions.users.store import account_key
from functions.users.tests.world import PASSWORD, World, me
from functions.users.tokens import parse_refresh_token

EMAIL, NAME = "ada.lovelace@example.com", "Augusta Ada King"


async def test_entities_show_neither_secrets_nor_persons(world: World) -> None:
    user = await world.register(EMAIL, name=NAME)
    tokens = await world.login(EMAIL)
    parsed = parse_refresh_token(tokens.refresh_token, 0)
    assert parsed
    home = await addresses.add_address(
        user.id, Address(NAME, "1 Engine Street", "London", "N1 9GU", "GB"), me(user), store=world.store
    )
    credentials = await world.store.get(Credentials, user.id)
    session = await world.store.get(Session, parsed.session_id)
    book = await world.store.get(AddressBook, user.id)
    keys = await world.keys.ready()
    assert credentials
    assert session
    shown = repr([user, credentials, session, book, home, keys, keys.current, tokens, vars(world).values()])
    shown += repr([service.Registration(EMAIL, PASSWORD, NAME), service.ProfileChange(NAME, EMAIL)])
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


async def test_logs_and_errors_name_accounts_by_id_only(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    user = await world.register(EMAIL, name=NAME)
    first = await world.login(EMAIL, address="192.0.2.1")
    second = await world.refresh(first.refresh_token)
    errors = []
    for use in (
        world.register(EMAIL, name=NAME),
        world.login(EMAIL, "not the password"),
        world.refresh(first.refresh_token),
        world.refresh(second.refresh_token),
        world.update(user, email=f"{EMAIL}@"),
        world.change_password(user, "not the password", "another fine password"),
        world.change_password(user, PASSWORD, EMAIL),
    ):
        with pytest.raises(ServiceError) as raised:
            await use
        errors.append((repr(raised.value), raised.value.message, raised.value.violations))
    await sessions.logout(first.refresh_token, store=world.store, clock=world.clock)
    await world.delete(user)
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


async def test_an_attempt_is_kept_without_the_address_it_was_for(world: World) -> None:
    with pytest.raises(ServiceError):
        await world.login(EMAIL, "not the password", "192.0.2.1")
    kept = str(world.memory.__dict__)
    assert "failures" in kept
    for named in (EMAIL, account_key(EMAIL), "192.0.2.1"):
        assert named not in kept


async def test_an_identity_does_not_show_its_token() -> None:
    assert "secret" not in repr(Identity("usr_x", frozenset(), "secret"))
