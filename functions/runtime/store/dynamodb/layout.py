"""The layout of a domain's DynamoDB table: keys, attributes, and conversion of items to rows and back.

| item | pk | sk | attributes |
|---|---|---|---|
| entity | `e#kind#id` | `e` | `v` version, `d` data and `k` index keys (JSON), `ex` |
| index entry | `i#kind#index#partition` | sort key and id | `ttl` if the entity has one |
| idempotency record | `g#key` | `g` | `f` fingerprint, `d` answer, `ex` |
| epoch | `epoch` | `epoch` | `n` the epoch |
| outbox row | `o#shard` | the event's id | `ty so su tm d co tp ts`; `n` and `more` if it has several |

`kind` is the stored name of the entity's class (`EntityMapping.name`). The epoch is explained in epochs.py.

Index entries are separate items and not a global secondary index, because an entity may have several entries in one
index, and because a list must show the latest writes. Items that expire have `ex` (microseconds) and `xs`, which put
them into the sparse index `expiry` that `Store.expire` reads. They also have `ttl` (seconds), by which DynamoDB removes
them itself.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from events.outbox import OutboxRow
from functions.runtime.store.codec import from_micros, micros
from functions.runtime.store.planning import IdempotencyRow, Stored
from functions.runtime.store.port import IndexKey

Item = dict[str, Any]
"""An item as boto3's client represents it: typed values by attribute name."""

OUTBOX_SHARDS: Final = 4
EXPIRY_SHARDS: Final = 4
"""The number of shards. A partition takes 1,000 writes a second. Shards may be added at any time, but never removed."""

EXPIRY: Final = "expiry"

# A sort key is `<sort> <id>`. Characters up to "!" in `sort` are escaped in a way that keeps their order. So the space
# sorts before any character of an escaped `sort`, and sort keys have the same order as the pairs (sort, id).
_ESCAPED: Final = {code: "!" + chr(code + 0x30) for code in range(0x22)}
_PLAIN: Final = {chr(code + 0x30): chr(code) for code in range(0x22)}
_LONGEST_PK: Final = 2048  # bytes
_LONGEST_SK: Final = 1024
_LAST: Final = "\U0010ffff"
_rows = msgspec.json.Decoder(list[tuple[str, str, str, str, int, str, str, str, str]])


def fits(pk: str, sk: str = "") -> bool:
    """Return whether DynamoDB accepts keys of this length."""
    return len(pk.encode()) <= _LONGEST_PK and len(sk.encode()) <= _LONGEST_SK


def entity_key(kind: str, entity_id: str) -> Item:
    """Return the key of an entity."""
    return {"pk": {"S": f"e#{kind}#{entity_id}"}, "sk": {"S": "e"}}


def record_key(key: str) -> Item:
    """Return the key of an idempotency record."""
    return {"pk": {"S": f"g#{key}"}, "sk": {"S": "g"}}


def epoch_key() -> Item:
    """Return the key of the epoch."""
    return {"pk": {"S": "epoch"}, "sk": {"S": "epoch"}}


def epoch_item(epoch: int) -> Item:
    """Return the item of the epoch; see `functions.runtime.store.epochs`."""
    return epoch_key() | {"n": {"N": str(epoch)}}


def epoch_of(item: Item | None) -> int:
    """Invert `epoch_item`. Returns 0 if there never was a restore."""
    return int(item["n"]["N"]) if item else 0


def entry_partition(kind: str, index: str, partition: str) -> str:
    """Return the `pk` of a listing."""
    return f"i#{kind}#{index}#{partition}"


def place(sort: str, entity_id: str) -> str:
    """Return the `sk` of an index entry."""
    return f"{sort.translate(_ESCAPED)} {entity_id}"


def placed(sk: str) -> tuple[str, str]:
    """Invert `place`: return the (sort, id) of an index entry."""
    escaped, _, entity_id = sk.partition(" ")
    first, *parts = escaped.split("!")
    return first + "".join(_PLAIN[part[0]] + part[1:] for part in parts), entity_id


def last_place(sort: str) -> str:
    """Return an upper bound for the `sk` of all entries with this sort key."""
    return place(sort, _LAST)


def outbox_partition(shard: int) -> str:
    """Return the `pk` of a shard of the outbox."""
    return f"o#{shard}"


def outbox_key(row_id: str) -> Item:
    """Return the key of the item whose first outbox row has the id `row_id`."""
    return {"pk": {"S": outbox_partition(_shard(row_id, OUTBOX_SHARDS))}, "sk": {"S": row_id}}


def expiry_partition(shard: int) -> str:
    """Return the `xs` of a shard of the expiry index."""
    return f"x#{shard}"


def entity_item(kind: str, entity_id: str, stored: Stored, version: str) -> Item:
    """Return the item of an entity. `version` is from `version_of`."""
    item = entity_key(kind, entity_id)
    item["v"] = {"S": version}
    item["d"] = {"S": stored.data.decode()}
    if stored.keys != b"[]":
        item["k"] = {"S": stored.keys.decode()}
    return item | _expiry(item["pk"]["S"], stored.expires)


def stored_of(item: Item) -> Stored:
    """Invert `entity_item`."""
    return Stored(
        int(item["v"]["S"].partition("-")[0]),
        item["d"]["S"].encode(),
        item["k"]["S"].encode() if "k" in item else b"[]",
        expiry_of(item),
    )


def expiry_of(item: Item) -> int | None:
    """Return when an entity or idempotency record expires, in microseconds since 1970."""
    return int(item["ex"]["N"]) if "ex" in item else None


def is_over(item: Item, now: datetime) -> bool:
    """Return whether the item has expired. DynamoDB may take days to remove it."""
    expires = expiry_of(item)
    return expires is not None and expires <= micros(now)


def version_of(version: int, token: str) -> str:
    """Return the value of attribute `v`, on which later writes are conditional.

    It contains the transaction's token, which distinguishes an entity from one that was later created with the same id.
    """
    return f"{version}-{token[:8]}"


def entry_key(kind: str, entity_id: str, key: IndexKey) -> Item:
    """Return the key of an index entry."""
    return {"pk": {"S": entry_partition(kind, key.name, key.partition)}, "sk": {"S": place(key.sort, entity_id)}}


def entry_item(kind: str, entity_id: str, key: IndexKey, expires: int | None) -> Item:
    """Return the item of an index entry, which expires with its entity."""
    item = entry_key(kind, entity_id, key)
    return item if expires is None else item | {"ttl": _seconds(expires)}


def record_item(record: IdempotencyRow) -> Item:
    """Return the item of an idempotency record."""
    item = record_key(record.key) | {"f": {"S": record.fingerprint}}
    if record.answer is not None:
        item["d"] = {"S": record.answer.decode()}
    return item | _expiry(item["pk"]["S"], record.expires)


def record_of(key: str, item: Item) -> IdempotencyRow:
    """Invert `record_item`."""
    answer = item["d"]["S"].encode() if "d" in item else None
    return IdempotencyRow(key, item["f"]["S"], answer, int(item["ex"]["N"]))


def outbox_item(rows: Sequence[OutboxRow]) -> Item:
    """Return one item that holds these rows. It is usually one row; see `Actions.outbox` for the exception."""
    first, more = rows[0], rows[1:]
    item = outbox_key(first.id)
    item |= {
        "ty": {"S": first.type},
        "so": {"S": first.source},
        "su": {"S": first.subject},
        "tm": {"N": str(micros(first.time))},
        "d": {"S": first.data.decode()},
        "co": {"S": first.correlation_id},
        "tp": {"S": first.traceparent},
        "ts": {"S": first.tracestate},
    }
    if more:
        packed = [(*row[:4], micros(row.time), row.data.decode(), *row[6:]) for row in more]
        item |= {"n": {"N": str(len(rows))}, "more": {"S": msgspec.json.encode(packed).decode()}}
    return item


def outbox_rows_of(item: Item) -> list[OutboxRow]:
    """Invert `outbox_item`."""
    row_id, kind, source, subject, data, *origin = (
        item[name]["S"] for name in ("sk", "ty", "so", "su", "d", "co", "tp", "ts")
    )
    more = _rows.decode(item["more"]["S"]) if "more" in item else []
    rows = [(row_id, kind, source, subject, int(item["tm"]["N"]), data, *origin), *more]
    return [OutboxRow._make((*row[:4], from_micros(int(row[4])), str(row[5]).encode(), *row[6:])) for row in rows]


def _expiry(pk: str, expires: int | None) -> Item:
    if expires is None:
        return {}
    shard = expiry_partition(_shard(pk, EXPIRY_SHARDS))
    return {"ex": {"N": str(expires)}, "xs": {"S": shard}, "ttl": _seconds(expires)}


def _seconds(expires: int) -> Item:
    return {"N": str(-(-expires // 1_000_000))}


def _shard(key: str, shards: int) -> int:
    return crc32(key.encode()) % shards
