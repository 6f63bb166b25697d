"""Requests and responses about the catalogue and its stock."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from functions.runtime import formats
from gateway.models.common import (
    Body,
    Bool,
    Count,
    Int,
    Moment,
    Money,
    NextCursor,
    PriceIn,
    Version,
    identifier,
    line,
    text,
)

AdjustmentKind = TypeAliasType(
    "AdjustmentKind",
    Annotated[
        Literal["ADJUSTMENT", "CORRECTION"],
        Field(description="How an administrator changed the stock: by a difference, or by setting the pieces on hand."),
    ],
)
Sku = Annotated[str, Field(pattern=formats.SKU, description="The merchant's own key.", examples=["MUG-01"])]
Name = Annotated[str, line(formats.MAX_PRODUCT_NAME), Field(description="Shown to people.", examples=["Mug"])]
Description = Annotated[
    str, text(formats.MAX_DESCRIPTION), Field(description="Shown to people.", examples=["Stoneware, 300 ml."])
]
Category = Annotated[str, Field(pattern=formats.CATEGORY, description="A slug.", examples=["kitchen"])]
ImageUrl = Annotated[
    str, Field(max_length=formats.MAX_URL, pattern=formats.IMAGE_URL, examples=["https://img.example.com/mug.jpg"])
]
ImageUrls = Annotated[list[ImageUrl], Field(max_length=formats.MAX_IMAGES, description="URLs of pictures, https only.")]
Pieces = Annotated[int, Field(ge=0, le=formats.MAX_ON_HAND)]
Active = Annotated[Bool, Field(description="Whether it is for sale.", examples=[True])]


class CreateProduct(Body):
    """A new product."""

    sku: Sku
    name: Name
    description: Description = ""
    category: Category
    price: PriceIn
    image_urls: Annotated[ImageUrls, Field(default_factory=list)]
    active: Active = True


class UpdateProduct(Body):
    """Changes of a product; absent fields stay unchanged."""

    name: Name | None = None
    description: Description | None = None
    category: Category | None = None
    price: PriceIn | None = None
    image_urls: ImageUrls | None = None
    active: Active | None = None


class SetStock(Body):
    """The number of pieces on hand."""

    on_hand: Annotated[Int, Field(ge=0, le=formats.MAX_ON_HAND, description="Includes reserved pieces.", examples=[50])]
    low_threshold: Annotated[
        Int | None,
        Field(
            ge=0,
            le=formats.MAX_ON_HAND,
            description="Administrators are notified below this, at most once a day. If absent, it is unchanged.",
            examples=[5],
        ),
    ] = None


class AdjustStock(Body):
    """A change of the number of pieces on hand."""

    delta: Annotated[
        Int,
        Field(
            ge=-formats.MAX_ON_HAND,
            le=formats.MAX_ON_HAND,
            description="Pieces to add, or if negative to remove; not 0.",
            examples=[20],
        ),
    ]
    reason: Annotated[
        str,
        line(formats.MAX_ADJUSTMENT_REASON),
        Field(description="The reason, which the stock ledger shows.", examples=["Delivery 17"]),
    ]


class Product(TypedDict):
    """A product of the catalogue."""

    id: Annotated[str, identifier("prd", "The product")]
    sku: Annotated[str, Field(description="The merchant's own key.", examples=["MUG-01"])]
    name: Annotated[str, Field(description="Shown to people.", examples=["Mug"])]
    description: Annotated[str, Field(description="Shown to people.", examples=["Stoneware, 300 ml."])]
    category: Annotated[str, Field(description="A slug.", examples=["kitchen"])]
    price: Money
    image_urls: Annotated[list[str], Field(examples=[["https://img.example.com/mug.jpg"]])]
    active: Annotated[bool, Field(description="Whether it is for sale.", examples=[True])]
    created_at: Moment
    updated_at: Moment
    version: Version


class ProductPage(TypedDict):
    """Products, newest first."""

    items: list[Product]
    next_cursor: NextCursor


class Stock(TypedDict):
    """The stock of a product."""

    product_id: Annotated[str, identifier("prd", "The product")]
    on_hand: Annotated[Pieces, Field(description="Pieces on hand, including reserved pieces.", examples=[50])]
    reserved: Annotated[Pieces, Field(description="Pieces held for orders that are not confirmed yet.", examples=[3])]
    available: Annotated[Pieces, Field(description="on_hand - reserved.", examples=[47])]
    low_threshold: Annotated[
        Pieces, Field(description="Administrators are notified when `available` is below this.", examples=[5])
    ]
    version: Version


class StockAdjustment(TypedDict):
    """An entry of a product's stock ledger."""

    id: Annotated[str, identifier("adj", "The entry")]
    product_id: Annotated[str, identifier("prd", "The product")]
    kind: AdjustmentKind
    delta: Annotated[
        int,
        Field(
            ge=-formats.MAX_ON_HAND,
            le=formats.MAX_ON_HAND,
            description="Pieces added, or if negative removed.",
            examples=[20],
        ),
    ]
    on_hand: Annotated[Pieces, Field(description="Pieces on hand afterwards.", examples=[67])]
    reason: Annotated[str, Field(description="The reason; empty for a correction.", examples=["Delivery 17"])]
    adjusted_by: Annotated[str, identifier("usr", "The administrator who made the change")]
    created_at: Moment


class StockAdjustmentPage(TypedDict):
    """A product's stock ledger, newest first."""

    items: list[StockAdjustment]
    next_cursor: NextCursor


class CategoryCount(TypedDict):
    """A category that has products."""

    name: Annotated[str, Field(description="Its slug.", examples=["kitchen"])]
    products: Annotated[Count, Field(description="Number of its active products.", examples=[7])]


class CategoryPage(TypedDict):
    """All categories by name. There are at most 1,000, so there is one page."""

    items: list[CategoryCount]
    next_cursor: NextCursor
