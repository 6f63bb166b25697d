"""Who a person is stands in the stores that need it, and nowhere else; who leaves is in no file any more."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import uuid4

import pytest

from events.catalog import PaymentCaptured, SweepDue
from knative.local.demo.shop import Person, Shop
from knative.local.demo.stories import eventually
from tests.conftest import MakeProduct
from tests.e2e.platform import LocalPlatform
from tests.e2e.test_recovery import code
from tests.security.test_events import event, event_url, post

NAMED_IN = {"users", "orders"}
"""The stores that may name people who have an account."""


@dataclass
class Life:
    """Somebody's time with the shop: what names them, and what only they know."""

    who: Person
    names: dict[str, str]
    secrets: dict[str, str] = field(default_factory=dict)
    shipped: str = ""
    waiting: str = ""


def unique(what: str) -> str:
    """A text that is nowhere else."""
    return f"{what}-{uuid4().hex}"


def written(local: LocalPlatform) -> Iterator[tuple[str, bytes]]:
    """Every byte that the platform wrote: stores with their logs and unused pages, events, dead letters, log lines."""
    for file in (*local.folder.rglob("*"), local.folder.with_name(f"{local.folder.name}.out")):
        if file.is_file():
            yield file.name, file.read_bytes()


def found(local: LocalPlatform, marks: dict[str, str]) -> set[tuple[str, str]]:
    """(file, what of it) for each mark that is in a file."""
    files = list(written(local))
    return {(name, what) for name, text in files for what, mark in marks.items() if mark.encode() in text}


def password_hash(local: LocalPlatform, user_id: str) -> str:
    database = sqlite3.connect(f"file:{local.folder / 'store' / 'users.db'}?mode=ro", uri=True)
    with closing(database):
        select = "SELECT data FROM entity WHERE kind = 'credentials' AND id = ?"
        (data,) = database.execute(select, (user_id,)).fetchone()
    return str(json.loads(data)["password_hash"])


async def sweep(local: LocalPlatform) -> None:
    """What comes every five minutes."""
    for domain in (*NAMED_IN, "notifications"):
        assert await post(event_url(local, domain), event(SweepDue), b"{}") == 204


async def lived(shop: Shop, local: LocalPlatform, admin: Person, product_id: str) -> Life:
    """Registers, moves, orders twice, verifies the address, resets the password, and mistypes now and then."""
    first, email, name = (f"{unique('first')}@example.com", f"{unique('mail')}@example.com", unique("Ada"))
    secrets = {"first password": unique("pw1"), "second password": unique("pw2"), "wrong": unique("wrong")}
    body = {"email": first, "password": secrets["first password"], "name": name}
    profile = await shop.call("POST", "/v1/users", json=body)
    who = await shop.login(first, secrets["first password"], profile)
    await shop.call("POST", "/v1/users/me/email-verification", who=who)
    secrets["verification"] = await code(shop, who, "email_verification")
    await shop.call("POST", "/v1/email-verifications", json={"token": secrets["verification"]})
    await shop.call("PATCH", "/v1/users/me", who=who, json={"email": email})
    secrets["change"] = await code(shop, who, "email_change")
    await shop.call("POST", "/v1/email-changes/confirm", json={"token": secrets["change"]})
    who = await shop.login(email, secrets["first password"], profile)
    secrets["undo"] = await code(shop, who, "email_changed")
    address = {part: unique(part) for part in ("name", "line1", "line2", "city", "state")}
    # Angola has no form of postal codes and no list of areas: both may be unique.
    address |= {"postal_code": uuid4().hex[:12].upper(), "country": "AO"}
    await shop.call("POST", "/v1/users/me/addresses", who=who, json=address)
    life = Life(who, {"first e-mail": first, "e-mail": email, "profile": name, **address}, secrets)
    del life.names["country"]
    life.names |= {
        f"digest of {mail}": sha256(life.names[mail].encode()).hexdigest() for mail in ("first e-mail", "e-mail")
    }

    await shop.raw("GET", f"/v1/no/{email}?email={email}&name={name}")
    life.shipped, life.waiting = [await bought(shop, who, product_id, address) for _ in range(2)]
    await shop.call("POST", f"/v1/orders/{life.shipped}/ship", who=admin)
    secrets["hash of the first password"] = password_hash(local, who.id)
    await shop.call("POST", "/v1/password-resets", json={"email": email})
    secrets["reset"] = await code(shop, who, "password_reset")
    new = {"token": secrets["reset"], "new_password": secrets["second password"]}
    await shop.call("POST", "/v1/password-resets/confirm", json=new)
    secrets |= {f"first {name}": str(token) for name, token in who.tokens.items() if "_token" in name}
    life.who = await shop.login(email, secrets["second password"], profile)
    secrets |= {name: str(token) for name, token in life.who.tokens.items() if "_token" in name}
    secrets["hash"] = password_hash(local, who.id)
    # What is still open when they leave.
    wrong = {"email": email, "password": secrets["wrong"]}
    assert (await shop.raw("POST", "/v1/sessions", json=wrong))[0] == 401
    await shop.call("POST", "/v1/password-resets", json={"email": email})
    return life


async def bought(shop: Shop, who: Person, product_id: str, address: dict[str, str]) -> str:
    body = {
        "lines": [{"product_id": product_id, "quantity": 1}],
        "shipping_address": address,
        "payment_token": "tok_ok",
    }
    order = await shop.call("POST", "/v1/orders", who=who, json=body, headers={"idempotency-key": uuid4().hex})
    await shop.settled(who, order["id"], status="CONFIRMED")
    return str(order["id"])


async def fails_for_good(local: LocalPlatform, shop: Shop, admin: Person, order_id: str) -> None:
    """An event about this order that ends as a dead letter."""
    wrong = {
        "order_id": order_id,
        "payment_id": "pay_" + order_id[4:],
        "amount": {"amount": 1, "currency": "EUR"},
    }
    broker = f"{event_url(local, 'broker')}/shop/default"
    headers = event(PaymentCaptured, **{"ce-subject": order_id})
    assert await post(broker, headers, json.dumps(wrong).encode()) == 202

    async def given_up() -> bool:
        letters = await shop.all("/v1/admin/dead-letters", admin)
        return any(letter["subject"] == order_id for letter in letters)

    await eventually(given_up, "a dead letter")


@pytest.fixture
async def life(shop: Shop, local: LocalPlatform, admin: Person, make_product: MakeProduct) -> Life:
    await sweep(local)  # not the first one, which looks for what a process that was killed had left
    life = await lived(shop, local, admin, (await make_product())["id"])
    await fails_for_good(local, shop, admin, life.shipped)
    return life


async def test_who_leaves_is_in_no_store_log_event_or_dead_letter_any_more(
    shop: Shop, local: LocalPlatform, admin: Person, life: Life
) -> None:
    alive = found(local, life.names)
    assert {what for _, what in alive} == set(life.names), "what is looked for is what was written"
    assert {name.partition(".")[0] for name, _ in alive} == NAMED_IN
    hashes, shown_in_development = (
        {"hash", "hash of the first password"},
        {"reset", "verification", "change", "undo"},
    )
    assert {what for _, what in found(local, life.secrets)} <= hashes | shown_in_development
    order = await shop.call("GET", f"/v1/orders/{life.shipped}", who=admin)
    await shop.call("DELETE", "/v1/users/me", who=life.who)

    async def forgotten() -> bool:
        await sweep(local)
        return not found(local, {**life.names, **life.secrets})

    await eventually(forgotten, "everything that names the person gone")
    kept = await shop.call("GET", f"/v1/orders/{life.shipped}", who=admin)
    assert not any(kept["shipping_address"].values())
    for needed_by_the_books in ("id", "user_id", "lines", "total", "created_at", "refunded"):
        assert kept[needed_by_the_books] == order[needed_by_the_books]
    cancelled = await shop.call("GET", f"/v1/orders/{life.waiting}", who=admin)
    assert cancelled["status"] == "CANCELLED"
    assert not any(cancelled["shipping_address"].values())
    paid = await shop.call("GET", f"/v1/orders/{life.shipped}/payment", who=admin)
    assert (paid["user_id"], paid["captured"]) == ("", order["total"])


async def test_an_export_has_all_of_its_person_and_nothing_of_others(shop: Shop, life: Life, customer: Person) -> None:
    kept = await shop.call("GET", "/v1/users/me/export", who=life.who)
    assert (kept["profile"]["email"], kept["profile"]["name"]) == (
        life.names["e-mail"],
        life.names["profile"],
    )
    assert [address["line1"] for address in kept["addresses"]] == [life.names["line1"]]
    assert {order["id"] for order in kept["orders"]} == {life.shipped, life.waiting}
    assert {order["shipping_address"]["line1"] for order in kept["orders"]} == {life.names["line1"]}
    assert {payment["order_id"] for payment in kept["payments"]} == {life.shipped, life.waiting}
    assert {"welcome", "order_confirmed"} <= {message["template"] for message in kept["notifications"]}
    assert kept["preferences"]["email_enabled"]
    others = json.dumps(await shop.call("GET", "/v1/users/me/export", who=customer))
    assert not [name for name, mark in {**life.names, "id": life.who.id}.items() if mark in others]
