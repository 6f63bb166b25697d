"""What an order leaves behind on PostgreSQL, and what it asks of it: bytes, WAL and statements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from events.catalog import Line, Money, OrderConfirmed, OrderPlaced, Payload, PaymentCaptured, StockReserved
from events.outbox import OutboxRow
from events.publisher import headers
from events.service_keys import PrivateKey
from events.signatures import Signer
from functions.runtime.ids import new_id, uuid7
from functions.runtime.store.postgres.client import postgres_url
from functions.runtime.store.postgres.local import Urls
from tests.bench.shop import BenchShop

_SIZES = """
SELECT n.nspname AS schema, c.relname AS name, pg_total_relation_size(c.oid) AS bytes
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relname IN ('entity', 'entry', 'guard')
"""
_USE = """
SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS wal, xact_commit
FROM pg_stat_database WHERE datname = current_database()
"""


@dataclass(frozen=True)
class Footprint:
    """What one order needs. `kept_bytes` by store stay; `guard_bytes`, which refuse repetitions, for seven days."""

    kept_bytes: Mapping[str, float]
    guard_bytes: float
    wal_bytes: float
    statements: float
    events: int
    event_bytes: float
    measured: str


async def measure(folder: Path, orders: int) -> Footprint:
    """Place orders on a private platform, and divide by their number how much its PostgreSQL grew and did."""
    async with BenchShop(folder, store="postgres") as shop:
        await shop.checkout(orders // 4)  # the first pages of every table and index
        urls = Urls.read(folder / "platform" / "postgres")
        assert urls is not None
        address = postgres_url(urls.admin)
        admin = await asyncpg.connect(address.url, user=address.user)
        before = {**await _sizes(admin), **await _use(admin)}
        await shop.checkout(orders)
        after = {**await _use(admin), **await _sizes(admin)}
        await admin.close()
    grown = {key: (after[key] - before[key]) / orders for key in after}
    kept: dict[str, float] = {}
    for key, each in grown.items():
        schema, _, table = key.partition(".")
        if table in ("entity", "entry"):
            kept[schema] = kept.get(schema, 0.0) + each
    guards = sum(each for key, each in grown.items() if key.endswith(".guard"))
    events = event_sizes()
    when = f"{datetime.now(UTC).date()}, {orders} orders"
    return Footprint(kept, guards, grown["wal"], grown["statements"], len(events), sum(events), when)


async def _sizes(admin: Any) -> dict[str, float]:
    """Return the bytes of each table with its indexes, after what is dead was removed."""
    await admin.execute("VACUUM")
    await admin.execute("CHECKPOINT")
    return {f"{row['schema']}.{row['name']}": float(row["bytes"]) for row in await admin.fetch(_SIZES)}


async def _use(admin: Any) -> dict[str, float]:
    """Return the bytes of WAL so far, and the statements, each of which is a transaction."""
    row = await admin.fetchrow(_USE)
    return {"wal": float(row["wal"]), "statements": float(row["xact_commit"])}


def event_sizes() -> list[int]:
    """Return the bytes of the events of an order of one product, attributes, signature and payload."""
    order, price = new_id("ord"), Money(1190, "EUR")
    user, product, now = new_id("usr"), new_id("prd"), datetime.now(UTC)
    payloads: list[Payload] = [
        OrderPlaced(order_id=order, user_id=user, lines=[Line(product, 1, price)], total=price),
        StockReserved(order_id=order, expires_at=now + timedelta(minutes=30)),
        PaymentCaptured(order_id=order, payment_id=new_id("pay"), amount=price),
        OrderConfirmed(order_id=order, user_id=user, total=price, product_ids=[product]),
    ]
    key = PrivateKey.generate("orders")
    signer = Signer(lambda: key)
    rows = [
        OutboxRow(
            id=uuid7(),
            time=now,
            type=payload.TYPE,
            source=payload.SOURCE,
            subject=payload.subject,
            data=msgspec.json.encode(payload),
            correlation_id=uuid7(),
            traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
            tracestate="",
        )
        for payload in payloads
    ]
    return [len(headers(row, signer)) + len(row.data) for row in rows]
