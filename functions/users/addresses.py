"""Use cases of a person's addresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from functions.runtime.addresses import normalise
from functions.runtime.errors import invalid
from functions.runtime.identity import Identity, require_self_or_admin
from functions.runtime.ids import new_id
from functions.runtime.store.port import Store
from functions.users.domain import Address, AddressBook, no_such_user


async def list_addresses(user_id: str, caller: Identity, *, store: Store) -> list[Address]:
    """Oldest first."""
    require_self_or_admin(caller, user_id)
    book = await store.get(AddressBook, user_id)
    if book is None:
        raise no_such_user()
    return book.addresses


async def add_address(user_id: str, address: Address, caller: Identity, *, store: Store) -> Address:
    """Keep another address, under an id of its own. Raises RESOURCE_EXHAUSTED (TOO_MANY_ADDRESSES)."""
    require_self_or_admin(caller, user_id)
    checked = _checked(address, new_id("adr"))
    await _edit(user_id, store, lambda book: book.add(checked))
    return checked


async def update_address(user_id: str, address: Address, caller: Identity, *, store: Store) -> Address:
    """Replace the address with this id. Raises NOT_FOUND (ADDRESS_NOT_FOUND)."""
    require_self_or_admin(caller, user_id)
    checked = _checked(address, address.id)
    await _edit(user_id, store, lambda book: book.replace(checked))
    return checked


async def delete_address(user_id: str, address_id: str, caller: Identity, *, store: Store) -> None:
    """Remove an address. Raises NOT_FOUND (ADDRESS_NOT_FOUND)."""
    require_self_or_admin(caller, user_id)
    await _edit(user_id, store, lambda book: book.remove(address_id))


async def _edit(user_id: str, store: Store, edit: Callable[[AddressBook], None]) -> None:
    def change(book: AddressBook | None) -> tuple[AddressBook, Sequence[Any]]:
        if book is None:  # made with the account and deleted with it: none without an account
            raise no_such_user()
        edit(book)
        return book, ()

    await store.update(AddressBook, user_id, change)


def _checked(address: Address, address_id: str) -> Address:
    clean, wrong = normalise(address, "address")
    if wrong:
        raise invalid("The address is not valid.", *wrong)
    return replace(clean, id=address_id)
