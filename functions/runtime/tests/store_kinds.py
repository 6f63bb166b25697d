"""What the tests of the stores keep: a counter, and a document with words, an owner and an end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from events.catalog import Money, Payload, StockLow, UserRegistered
from functions.runtime.errors import failed_precondition
from functions.runtime.store.port import EntityMapping, IdempotencyRecord, IndexKey, Store

CENT = Money(amount=1, currency="EUR")
SOME_ID = "usr_" + "0" * 32


@dataclass
class Counter:
    """Something of which there is only so much."""

    id: str
    left: int = 0
    version: int = 0

    def take(self, quantity: int = 1) -> None:
        """Raises FAILED_PRECONDITION when there is not enough."""
        if self.left < quantity:
            raise failed_precondition("OUT_OF_STOCK", "There is not enough.")
        self.left -= quantity


@dataclass
class Document:
    """Something with several index entries."""

    id: str
    owner: str = "nobody"
    rank: str = "m"
    text: str = ""
    price: Money = CENT
    tags: dict[str, list[str]] = field(default_factory=dict)
    written: datetime | None = None
    ends: datetime | None = None
    version: int = 0


def _entries(document: Document) -> Iterable[IndexKey]:
    yield IndexKey("owner", document.owner, document.rank)
    for word in re.findall(r"\w+", document.text):
        yield IndexKey("words", word, document.rank)


MAPPINGS = (
    EntityMapping(Counter, "counter"),
    EntityMapping(Document, "document", _entries, lambda document: document.ends),
)


def inbox_record(key: str) -> IdempotencyRecord:
    """An inbox mark."""
    return IdempotencyRecord(f"inbox:{key}", timedelta(days=7))


def happened(number: int = 0) -> Payload:
    """An event, told apart by its number."""
    if number == 0:
        return UserRegistered(user_id=SOME_ID)
    return StockLow(product_id=f"prd_{number:032x}", sku="sku", available=number, threshold=number)


async def put(store: Store, *documents: Document) -> None:
    """Store these documents, whatever was there under their ids."""
    for document in documents:
        await store.update(Document, document.id, partial(_exactly, replace(document)))


def _exactly(document: Document, _: Document | None) -> tuple[Document, Sequence[Payload]]:
    return document, ()


def filled(left: int) -> Counter:
    """A counter to start with."""
    return Counter("c", left)


def adding(
    by: int = 1, events: Sequence[Payload] = (), *, key: str = "c"
) -> Callable[[Counter | None], tuple[Counter, Sequence[Payload]]]:
    """A change that creates the counter `key` or adds to it."""

    def change(counter: Counter | None) -> tuple[Counter, Sequence[Payload]]:
        counter = counter or Counter(key)
        counter.left += by
        return counter, events

    return change
