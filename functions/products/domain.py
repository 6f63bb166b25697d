"""The catalogue: products, the claims on their SKUs, their searchable words, the categories in use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from events.catalog import Money
from functions.products import folding
from functions.products.text import searchable
from functions.products.validation import Draft, Edit, check_edit, checked
from functions.runtime.errors import aborted, failed_precondition


@dataclass
class Product:
    """Something for sale. `deleted` is for good: it is then inactive, and its SKU free for another one."""

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
    def create(product_id: str, draft: Draft, now: datetime) -> Product:
        """A new product; raises INVALID_ARGUMENT."""
        draft, price = checked(draft)
        return Product(
            id=product_id,
            sku=draft.sku,
            name=draft.name,
            description=draft.description,
            category=draft.category,
            price=price,
            image_urls=list(draft.image_urls),
            active=draft.active,
            created_at=now,
            updated_at=now,
        )

    @property
    def listed(self) -> str:
        """Sorts by age and is unique, so that it can mark a place in a listing."""
        return f"{self.created_at:%Y-%m-%dT%H:%M:%S.%f}/{self.id}"

    @property
    def counted_in(self) -> str:
        """The category that counts it; empty for an inactive one."""
        return self.category if self.active else ""

    def edit(self, edit: Edit, version: int | None, now: datetime) -> None:
        """Change what is present; `version` is what the editor had read.

        Raises INVALID_ARGUMENT, ABORTED (VERSION_MISMATCH), FAILED_PRECONDITION (PRODUCT_DELETED).
        """
        edit = check_edit(edit)
        if version is not None and version != self.version:
            raise aborted("VERSION_MISMATCH", "The product was changed in the meantime: read it again.")
        if self.deleted:
            raise failed_precondition("PRODUCT_DELETED", "The product was deleted.")
        before = replace(self)
        for field in ("name", "description", "category", "price", "image_urls", "active"):
            wanted = getattr(edit, field)
            if wanted is not None:
                setattr(self, field, wanted)
        if self != before:
            self.updated_at = now

    def delete(self, now: datetime) -> None:
        """Take it out of the catalogue; again is no change."""
        if not self.deleted:
            self.active, self.deleted, self.updated_at = False, True, now


@dataclass
class SkuClaim:
    """Who has a SKU; `id` is the SKU, so that two products cannot."""

    id: str
    product_id: str
    version: int = 0


@dataclass
class ProductText:
    """What a search looks through, apart from the product so that reading and pricing one stay cheap.

    `id` is the product's, `listed` its place among the products, `text` as `searchable` writes it, `folding` the
    version of the rules by which it was written (0: before rules had versions).
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
        """The words of a product as it is; the SKU counts in its parts and in one piece."""
        joined = "".join(char for char in product.sku if char.isalnum())
        text = searchable(product.name, product.sku, joined, product.description)
        return ProductText(
            product.id, product.listed, product.category, product.active, text, folding.VERSION, version
        )


@dataclass
class SearchIndex:
    """How far the stored texts were folded anew, after a release that folds by other rules.

    `folding` is the version that every text has. Until then a pass goes through all texts, newest first: it has come
    to `position`, and found `stale` texts.
    """

    id: str = "products"
    folding: int = 0
    position: str = ""
    stale: int = 0
    version: int = 0


@dataclass
class Category:
    """A category in use: `id` is its slug, `products` how many active products it has."""

    id: str
    products: int
    version: int = 0
