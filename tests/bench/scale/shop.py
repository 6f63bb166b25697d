"""The history of a shop of any size, made by the domains' own code, for filling the stores.

Everything but the ids comes from a seeded generator. A tenth of the orders is cancelled. The number of orders that wait
for payment is fixed, because it does not grow with a shop's past.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

from events.catalog import Money
from functions.orders.domain import Order
from functions.orders.pricing import Offer, RequestedLine, price_lines
from functions.products.domain import Category, CreateProduct, Product, ProductText, SearchIndex, SkuClaim
from functions.products.search import folding
from functions.products.stock.domain import Stock
from functions.runtime.addresses import PostalAddress
from functions.runtime.currencies import SIMULATED
from functions.runtime.ids import new_id
from functions.runtime.store.port import Entity
from functions.users.domain import AddressBook, Credentials, EmailClaim, User
from functions.users.emails import email_key

CATEGORIES = ("coffee", "kitchen", "garden", "books", "bath", "office", "toys", "music", "lights", "tools")
COMMON = "kettle"
"""A word that occurs in one product in twenty."""
SELDOM = (
    *("amber", "azure", "beige", "black", "brown", "coral", "ebony", "green", "ivory", "khaki"),
    *("lemon", "linen", "ochre", "olive", "peach", "pearl", "plain", "rusty", "taupe", "white"),
)
"""Each of these words occurs in one product in twenty, and so does its partner in `PARTNERS`."""
PARTNERS = (
    *("agate", "birch", "brass", "cedar", "chalk", "cloth", "ceramic", "denim", "flint", "glass"),
    *("granite", "jute", "larch", "maple", "nylon", "quartz", "slate", "steel", "straw", "wicker"),
)
MEETINGS = 5
"""The number of products that have both a word and its partner, in a catalogue of any size."""
WAITING = 50
"""The number of orders that are not paid yet."""

_PATTERNS = 200
_START = datetime(2020, 1, 1, tzinfo=UTC)
_SYLLABLES = ("ka", "mo", "ri", "te", "lu", "san", "der", "vel", "pin", "gor", "hal", "zi")
_HOME = PostalAddress("Ada Lovelace", "12 St James's Square", "London", "SW1Y 4JH", "GB")


class Size(NamedTuple):
    """The numbers of entities."""

    orders: int
    products: int
    users: int


class OrderSample(NamedTuple):
    """An order that an operation may read."""

    id: str
    user_id: str
    created_at: str


def users(count: int) -> Iterator[Sequence[Entity]]:
    """Yield accounts, each with everything that belongs to it."""
    for number in range(count):
        email, at = f"person.{number}@example.com", _START + timedelta(minutes=number)
        user, _ = User.register(new_id("usr"), email, f"Person {number}", ("customer",), at)
        claim = EmailClaim(email_key(email), user.id)
        yield user, claim, AddressBook(user.id), Credentials(user.id, "$argon2id$v=19$" + "x" * 80)


def products(count: int) -> Iterator[Sequence[Entity]]:
    """Yield a catalogue with ten thousand pieces of each product; the categories' counts and the index come last."""
    random = Random(count)
    for number in range(count):
        at = _START + timedelta(minutes=number)
        product = Product.create(new_id("prd"), _create_product(number, random, count), at)
        stock = Stock(product.id, product.sku, True, on_hand=10_000)
        yield product, SkuClaim(product.sku, product.id), ProductText.of(product), stock
    index = SearchIndex(folding=folding.VERSION)  # as after the first sweep
    yield [*(Category(slug, count // len(CATEGORIES)) for slug in CATEGORIES), index]


def _create_product(number: int, random: Random, count: int) -> CreateProduct:
    category = CATEGORIES[number % len(CATEGORIES)]
    name = f"{_word(random)} {_word(random)} {COMMON if number % 20 == 0 else _word(random)}".title()
    turn, pair = divmod(number, len(SELDOM))
    meets = turn % (count // len(SELDOM) // MEETINGS) == 0
    partner = pair if meets else (pair + random.randrange(1, len(SELDOM))) % len(SELDOM)
    return CreateProduct(
        sku=sku(number),
        name=name,
        category=category,
        price=Money(random.randrange(100, 100_000), "EUR"),
        description=f"{name} for {category}: {' '.join(_word(random) for _ in range(6))}, {SELDOM[pair]} "
        f"{PARTNERS[partner]}.",
    )


def sku(number: int) -> str:
    """Return the SKU of a product: half of all begin with the same letters."""
    return f"{'KET' if number % 2 else 'SHP'}-{number:06d}"


def _word(random: Random) -> str:
    return "".join(random.choices(_SYLLABLES, k=random.randrange(2, 4)))


def orders(count: int, user_ids: Sequence[str], product_ids: Sequence[str]) -> Iterator[Order]:
    """Yield orders, oldest first; the last `WAITING` of them wait for their payment.

    `_PATTERNS` orders go through the domain's transitions; every other order is a copy of one of them with another user
    and time.
    """
    random, paid = Random(count), count - WAITING
    patterns = [_final_order(product_ids, random, cancelled=number % 10 == 0) for number in range(_PATTERNS)]
    for number in range(count):
        if number < paid:
            at, pattern = _START + timedelta(seconds=10 * number), random.choice(patterns)
        else:
            at, pattern = datetime.now(UTC), _placed(product_ids, random)
        user_id = user_ids[number % len(user_ids)]
        yield replace(pattern, id=new_id("ord"), user_id=user_id, created_at=at, updated_at=at, moved_at=at)


def _placed(product_ids: Sequence[str], random: Random) -> Order:
    requested = [RequestedLine(product, random.randrange(1, 4)) for product in random.sample(product_ids, 2)]
    offers = {line.product_id: _offer(line.product_id) for line in requested}
    lines, total = price_lines(requested, offers, SIMULATED)
    order = Order(new_id("ord"), new_id("usr"), lines, total, _HOME, _START, _START, _START, payment_token="tok_ok")
    order.placed()
    return order


def _final_order(product_ids: Sequence[str], random: Random, *, cancelled: bool) -> Order:
    order = _placed(product_ids, random)
    order.stock_reserved(_START + timedelta(seconds=1))
    order.payment_captured(_START + timedelta(seconds=2), order.total)
    if cancelled:
        order.cancel(_START + timedelta(hours=1), "CUSTOMER_REQUEST", by=order.user_id)
    else:
        order.ship(_START + timedelta(days=1))
        order.deliver(_START + timedelta(days=3))
    return order


def _offer(product_id: str) -> Offer:
    return Offer(product_id, product_id[-8:], "Guji Natural, 250 g", Money(1190, "EUR"), active=True)
