"""Fills stores in bulk with rows made by the adapters' own code, which is faster than their public methods."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Protocol

from functions.orders.domain import Order
from functions.orders.store import MAPPINGS as ORDERS
from functions.orders.store import sort_key
from functions.products.domain import Product
from functions.products.store import MAPPINGS as PRODUCTS
from functions.runtime.store.codec import CodecRegistry
from functions.runtime.store.planning import Request, Write, plan
from functions.runtime.store.port import Changes, Entity, EntityMapping, Ref
from functions.users.domain import User
from functions.users.store import MAPPINGS as USERS
from observability.context import current
from tests.bench.scale import shop

MAPPINGS: dict[str, Sequence[EntityMapping[Any]]] = {"orders": ORDERS, "products": PRODUCTS, "users": USERS}
_SAMPLE = 100_000
_STEP = 20_000


class Sink(Protocol):
    """The destination of rows."""

    def add(self, write: Write) -> None:
        """Add a row."""

    def close(self) -> None:
        """Write the remaining rows and close."""


def fill(open_sink: Callable[[str], Sink], size: shop.Size, sample: Path) -> None:
    """Fill the stores of all domains, report the progress, and write a sample of ids into `sample`."""
    people, goods, asked = list[str](), list[str](), list[shop.OrderSample]()
    random = Random(1)
    for entities in _filled(open_sink, "users", shop.users(size.users), size.users):
        people.append(next(entity.id for entity in entities if isinstance(entity, User)))
    for entities in _filled(open_sink, "products", shop.products(size.products), size.products):
        goods.extend(entity.id for entity in entities if isinstance(entity, Product))
    history = ([order] for order in shop.orders(size.orders, people, goods))
    for (order,) in _filled(open_sink, "orders", history, size.orders):
        assert isinstance(order, Order)
        if random.random() < _SAMPLE / size.orders:
            asked.append(shop.OrderSample(order.id, order.user_id, sort_key(order.created_at)))
    sample.write_text(json.dumps({"orders": asked, "products": goods, "users": people}))


def _filled(
    open_sink: Callable[[str], Sink], domain: str, rows: Iterable[Sequence[Entity]], count: int
) -> Iterator[Sequence[Entity]]:
    sink, codecs, start = open_sink(domain), CodecRegistry(MAPPINGS[domain]), time.monotonic()
    for number, entities in enumerate(rows, 1):
        for write in _writes(codecs, entities):
            sink.add(write)
        yield entities
        if number % _STEP == 0:
            _say(f"  {domain}: {number:,} of {count:,}, {time.monotonic() - start:.0f} s")
    sink.close()
    _say(f"  {domain}: {count:,} in {time.monotonic() - start:.0f} s\n")


def _writes(codecs: CodecRegistry, entities: Sequence[Entity]) -> Sequence[Write]:
    refs = [Ref(type(entity), entity.id) for entity in entities]
    request = Request(refs, lambda _: Changes(None, entities), None, current())
    return plan(codecs, request, {}, datetime.now(UTC)).writes


def _say(line: str) -> None:
    sys.stderr.write(f"\r{line}")
    sys.stderr.flush()
