"""Patterns and bounds of fields. The gateway documents them and the services enforce them.

Patterns are anchored, and use only syntax that JSON Schema, RE2 and Python share. Amounts are in minor units.
"""

from __future__ import annotations

from typing import Final

IDEMPOTENCY_KEY: Final = r"^[\x21-\x7e]{1,255}$"
PAYMENT_TOKEN: Final = r"^[A-Za-z0-9_.:-]{1,255}$"  # noqa: S105 - a pattern
REASON: Final = r"^[A-Z][A-Z0-9_]{0,63}$"
SKU: Final = r"^[A-Za-z0-9._-]{1,64}$"
CATEGORY: Final = r"^[a-z0-9-]{1,50}$"
IMAGE_URL: Final = (
    r"^https://(?:[A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}(?::[0-9]{1,5})?"
    r"(?:[/?#][A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*)?$"
)

MAX_URL: Final = 2048
MAX_IMAGES: Final = 10
MAX_PRODUCT_NAME: Final = 200
MAX_DESCRIPTION: Final = 5000
MAX_QUERY: Final = 200
MIN_PRICE: Final = 0
MAX_PRICE: Final = 10_000_000_000
MAX_ON_HAND: Final = 1_000_000_000
MAX_ADJUSTMENT_REASON: Final = 200

MAX_LINES: Final = 50
MAX_QUANTITY: Final = 1_000
MAX_TOTAL: Final = 1_000_000_000_000
"""The largest total of an order. It is far below 2**53, above which JSON numbers are inexact."""

MAX_NAME: Final = 100
MAX_EMAIL: Final = 254
MIN_PASSWORD: Final = 10
MAX_PASSWORD: Final = 128
