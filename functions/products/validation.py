"""What a catalogue entry must look like. All that is wrong is said at once, by the paths of the JSON body."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from events.catalog import Money
from functions.runtime import formats
from functions.runtime.currencies import CURRENCIES, ProviderLimits
from functions.runtime.errors import ServiceError, invalid
from functions.runtime.text import TextError, check_text, clean_line

_SKU = re.compile(formats.SKU)
_CATEGORY = re.compile(formats.CATEGORY)
_URL = re.compile(formats.IMAGE_URL)

Violations = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class Edit:
    """Fields of a catalogue entry as somebody wants them; None leaves a field as it is."""

    name: str | None = None
    description: str | None = None
    category: str | None = None
    price: Money | None = None
    image_urls: list[str] | None = None
    active: bool | None = None


@dataclass(frozen=True)
class Draft:
    """A product that somebody wants to add; `price` may be missing, which is refused."""

    sku: str
    name: str
    category: str
    price: Money | None
    description: str = ""
    image_urls: Sequence[str] = ()
    active: bool = True


def checked(draft: Draft) -> tuple[Draft, Money]:
    """Return a valid draft as it is kept, and its price; raises INVALID_ARGUMENT with every violation."""
    edit = Edit(draft.name, draft.description, draft.category, draft.price, list(draft.image_urls))
    found = [*_sku(draft.sku), *_violations(edit)]
    if draft.price is None:
        raise _invalid([*found, ("price", "is required")])
    if found:
        raise _invalid(found)
    return replace(draft, name=clean_line(draft.name, formats.MAX_PRODUCT_NAME)), draft.price


def check_edit(edit: Edit) -> Edit:
    """Return a valid edit as it is kept; raises INVALID_ARGUMENT with every violation."""
    if found := list(_violations(edit)):
        raise _invalid(found)
    return edit if edit.name is None else replace(edit, name=clean_line(edit.name, formats.MAX_PRODUCT_NAME))


def require_chargeable(price: Money, limits: ProviderLimits) -> None:
    """Raise INVALID_ARGUMENT (PRICE_NOT_CHARGEABLE) for a price that the payment provider cannot charge."""
    if (problem := limits.price_problem(price)) is not None:
        part, message = problem
        raise invalid(
            f"{limits.provider} cannot charge this price.",
            (f"price.{part}", message),
            reason="PRICE_NOT_CHARGEABLE",
        )


def category_violations(category: str) -> Violations:
    """What is wrong with a slug."""
    if not _CATEGORY.fullmatch(category):
        yield "category", "must be 1 to 50 of lower-case letters, digits and -"


def _invalid(found: list[tuple[str, str]]) -> ServiceError:
    return invalid("The product is not valid.", *found)


def _violations(edit: Edit) -> Violations:
    if edit.name is not None:
        yield from _name(edit.name)
    if edit.description is not None:
        yield from _description(edit.description)
    if edit.category is not None:
        yield from category_violations(edit.category)
    if edit.price is not None:
        yield from _price(edit.price)
    if edit.image_urls is not None:
        yield from _image_urls(edit.image_urls)


def _sku(sku: str) -> Violations:
    if not _SKU.fullmatch(sku):
        yield "sku", "must be 1 to 64 of letters, digits, ., _ and -"


def _name(name: str) -> Violations:
    try:
        clean_line(name, formats.MAX_PRODUCT_NAME)
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
