"""The entities of the catalogue: products, SKU claims, search texts and categories in use.

A command is validated as a whole: the error lists every invalid field by its path in the JSON body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from events.catalog import Money
from functions.products.search import folding
from functions.products.search.keys import searchable
from functions.runtime import formats
from functions.runtime.currencies import CURRENCIES
from functions.runtime.errors import ServiceError, aborted, failed_precondition, invalid
from functions.runtime.text import TextError, check_text, clean_line

_SKU = re.compile(formats.SKU)
_CATEGORY = re.compile(formats.CATEGORY)
_URL = re.compile(formats.IMAGE_URL)

Violations = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class UpdateProduct:
    """Change a product. None leaves a field unchanged. `version` is the one that the caller read, or None for any."""

    product_id: str
    name: str | None = None
    description: str | None = None
    category: str | None = None
    price: Money | None = None
    image_urls: list[str] | None = None
    active: bool | None = None
    version: int | None = None

    def validated(self) -> UpdateProduct:
        """Return the command with its name normalised for storage; raises InvalidArgument."""
        if violations := list(_violations(self)):
            raise _invalid(violations)
        return self if self.name is None else replace(self, name=_clean_name(self.name))


@dataclass(frozen=True)
class CreateProduct:
    """Add a product. `price` is None if the request contains no price; the product is then refused."""

    sku: str
    name: str
    category: str
    price: Money | None
    description: str = ""
    image_urls: Sequence[str] = ()
    active: bool = True


@dataclass
class Product:
    """A product for sale. Deletion is final: a deleted product is inactive, and another product may use its SKU."""

    id: str
    sku: str
    name: str
    description: str
    category: str
    price: Money
    image_urls: list[str]
    active: bool
    created_at: datetime
    updated_at: datetime
    deleted: bool = False
    version: int = 0

    @staticmethod
    def create(product_id: str, command: CreateProduct, now: datetime) -> Product:
        """Return a new product; raises InvalidArgument."""
        price, urls = command.price, list(command.image_urls)
        fields = UpdateProduct(product_id, command.name, command.description, command.category, price, urls)
        violations = [*_sku(command.sku), *_violations(fields)]
        if price is None:
            raise _invalid([*violations, ("price", "is required")])
        if violations:
            raise _invalid(violations)
        return Product(
            id=product_id,
            sku=command.sku,
            name=_clean_name(command.name),
            description=command.description,
            category=command.category,
            price=price,
            image_urls=urls,
            active=command.active,
            created_at=now,
            updated_at=now,
        )

    @property
    def listed(self) -> str:
        """The position in listings: unique, and sorted by creation time."""
        return f"{self.created_at:%Y-%m-%dT%H:%M:%S.%f}/{self.id}"

    @property
    def counted_in(self) -> str:
        """The category whose count includes the product; empty for an inactive product."""
        return self.category if self.active else ""

    def update(self, command: UpdateProduct, now: datetime) -> None:
        """Change the given fields.

        Raises:
            InvalidArgument: a field is invalid.
            Aborted: VERSION_MISMATCH.
            FailedPrecondition: PRODUCT_DELETED.
        """
        command = command.validated()
        if command.version is not None and command.version != self.version:
            raise aborted("VERSION_MISMATCH", "The product was changed in the meantime: read it again.")
        if self.deleted:
            raise failed_precondition("PRODUCT_DELETED", "The product was deleted.")
        before = replace(self)
        for field in ("name", "description", "category", "price", "image_urls", "active"):
            value = getattr(command, field)
            if value is not None:
                setattr(self, field, value)
        if self != before:
            self.updated_at = now

    def delete(self, now: datetime) -> None:
        """Remove the product from the catalogue. A second call changes nothing."""
        if not self.deleted:
            self.active, self.deleted, self.updated_at = False, True, now


@dataclass
class SkuClaim:
    """The record that a product uses a SKU. `id` is the SKU, so that no two products can use the same one."""

    id: str
    product_id: str
    version: int = 0


@dataclass
class ProductText:
    """The search text of a product, stored separately so that reading and pricing a product stay cheap.

    `id` is the product's id and `listed` its position in listings. `text` is a result of `searchable`. `folding` is the
    version of the rules that folded the text; 0 means that it was folded before the rules had versions.
    """

    id: str
    listed: str
    category: str
    active: bool
    text: str
    folding: int = 0
    version: int = 0

    @staticmethod
    def of(product: Product, version: int = 0) -> ProductText:
        """Return the search text of a product. It contains the SKU both in parts and as one word."""
        joined = "".join(char for char in product.sku if char.isalnum())
        text = searchable(product.name, product.sku, joined, product.description)
        return ProductText(product.id, product.listed, product.category, product.active, text, folding.VERSION, version)


@dataclass
class SearchIndex:
    """The progress of folding stored texts again after a release that changed the folding rules.

    `folding` is the lowest version of the rules that any text may have. A pass reads all texts, newest first. It has
    reached `position`, and has found `stale` outdated texts so far.
    """

    id: str = "products"
    folding: int = 0
    position: str = ""
    stale: int = 0
    version: int = 0


@dataclass
class Category:
    """A category in use. `id` is its slug, and `products` is the number of its active products."""

    id: str
    products: int
    version: int = 0


def category_violations(category: str) -> Violations:
    """Yield the violations of the format of a category's slug."""
    if not _CATEGORY.fullmatch(category):
        yield "category", "must be 1 to 50 of lower-case letters, digits and -"


def _clean_name(name: str) -> str:
    return clean_line(name, formats.MAX_PRODUCT_NAME)


def _invalid(violations: list[tuple[str, str]]) -> ServiceError:
    return invalid("The product is not valid.", *violations)


def _violations(command: UpdateProduct) -> Violations:
    if command.name is not None:
        yield from _name(command.name)
    if command.description is not None:
        yield from _description(command.description)
    if command.category is not None:
        yield from category_violations(command.category)
    if command.price is not None:
        yield from _price(command.price)
    if command.image_urls is not None:
        yield from _image_urls(command.image_urls)


def _sku(sku: str) -> Violations:
    if not _SKU.fullmatch(sku):
        yield "sku", "must be 1 to 64 of letters, digits, ., _ and -"


def _name(name: str) -> Violations:
    try:
        _clean_name(name)
    except TextError as error:
        yield "name", str(error)


def _description(description: str) -> Violations:
    try:
        check_text(description, formats.MAX_DESCRIPTION)
    except TextError as error:
        yield "description", str(error)


def _price(price: Money) -> Violations:
    if not formats.MIN_PRICE <= price.amount <= formats.MAX_PRICE:
        bounds = f"{formats.MIN_PRICE} and {formats.MAX_PRICE}"
        yield "price.amount", f"must be between {bounds}, in minor units"
    if price.currency not in CURRENCIES:
        yield "price.currency", "must be a currency code of ISO 4217, such as EUR"


def _image_urls(urls: Sequence[str]) -> Violations:
    if len(urls) > formats.MAX_IMAGES:
        yield "image_urls", f"must be at most {formats.MAX_IMAGES}"
    for index, url in enumerate(urls[: formats.MAX_IMAGES]):
        if len(url) > formats.MAX_URL or not _URL.fullmatch(url):
            yield f"image_urls[{index}]", f"must be an https URL of at most {formats.MAX_URL} characters"
