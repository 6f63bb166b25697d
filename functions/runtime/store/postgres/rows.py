"""Statements, and the values of their parameters.

PostgreSQL's texts cannot contain NUL, so NUL and the character after it are escaped in a way that keeps their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from events.outbox import OutboxRow
from functions.runtime.store.codec import from_micros, micros
from functions.runtime.store.planning import IdempotencyRow, Stored, Write

_ESCAPED = {0: "\x01\x01", 1: "\x01\x02"}


def escape(text: str) -> str:
    """Return the text without NUL. Escaped texts sort in the same order as the original ones."""
    return text if text.isprintable() else text.translate(_ESCAPED)


def unescape(text: str) -> str:
    """Invert `escape`."""
    return text.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01") if "\x01" in text else text


class Statements:
    """The statements on one schema."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.state = f"SELECT version, serves, epoch FROM {schema}.store"
        self.ping = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
        self.get = f"""
SELECT id, data FROM {schema}.entity WHERE kind = $1 AND id = ANY($2) AND (expires IS NULL OR expires > $3)"""
        # LIMIT 1 makes PostgreSQL look up each row by its key. Without it, a plan may scan the whole table.
        self.read = f"""
SELECT NULL AS kind, key AS id, 0 AS version, expires, 0 AS mark, fingerprint, answer AS data, NULL AS keys
FROM {schema}.guard WHERE key = ANY($1)
UNION ALL
SELECT wanted.kind, wanted.id, entity.version, entity.expires, entity.mark, NULL, entity.data, entity.keys
FROM unnest($2::text[], $3::text[]) AS wanted (kind, id) CROSS JOIN LATERAL (
    SELECT * FROM {schema}.entity WHERE entity.kind = wanted.kind AND entity.id = wanted.id LIMIT 1
) AS entity"""
        self.commit = f"SELECT {schema}.commit_1({', '.join(f'${number}' for number in range(1, _PARAMETERS + 1))})"
        self.outbox = f"SELECT * FROM {schema}.outbox WHERE time < $1 ORDER BY id LIMIT $2"
        self.outbox_published = f"DELETE FROM {schema}.outbox WHERE id = ANY($1)"
        self.outbox_has = f"SELECT 1 FROM {schema}.outbox WHERE id = ANY($1) LIMIT 1"
        self.outbox_state = f"SELECT count(*), min(time) FROM {schema}.outbox"
        self.due = f"""
SELECT kind, id, version, expires, mark, keys FROM {schema}.entity WHERE expires <= $1 ORDER BY expires LIMIT $2"""
        self.expire_records = f"""
WITH gone AS (
    DELETE FROM {schema}.guard WHERE key IN (
        SELECT key FROM {schema}.guard WHERE expires <= $1 ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED
    ) RETURNING 1
) SELECT count(*) FROM gone"""

    def page(self, *, after: bool, until: bool, descending: bool) -> str:
        """Return the statement that selects sort key, id and data of a partition's entities.

        Its parameters are kind, index, partition, the current time, the limit, the sort key and id of `after`, and
        `until`.
        """
        way = "DESC" if descending else "ASC"
        bounds = f" AND (entry.sort, entry.id) {'<' if descending else '>'} ($6, $7)" if after else ""
        if until:
            bounds += f" AND entry.sort <= ${8 if after else 6}"
        return f"""
SELECT entry.sort, entry.id, entity.data FROM (
    SELECT sort, id FROM {self.schema}.entry WHERE kind = $1 AND name = $2 AND part = $3{bounds}
    ORDER BY sort {way}, id {way}
) AS entry CROSS JOIN LATERAL (
    SELECT data FROM {self.schema}.entity
    WHERE entity.kind = $1 AND entity.id = entry.id AND (expires IS NULL OR expires > $4) LIMIT 1
) AS entity ORDER BY entry.sort {way}, entry.id {way} LIMIT $5"""

    def count(self, *, below: bool) -> str:
        """Return the statement that counts entries, and selects the lowest sort key among those, for each listing.

        Its parameters are kind, indexes, partitions, the maximum to count, and `below`.
        """
        return f"""
SELECT counted.count, counted.low FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS listing (name, part, number)
CROSS JOIN LATERAL (
    SELECT count(*) AS count, min(sort) AS low FROM (
        SELECT sort FROM {self.schema}.entry
        WHERE kind = $1 AND entry.name = listing.name AND entry.part = listing.part{" AND sort < $5" if below else ""}
        ORDER BY sort DESC, id DESC LIMIT $4
    ) AS newest
) AS counted ORDER BY listing.number"""

    def few(self, terms: int, *, below: bool, containing: int) -> str:
        """Return the statement that selects sort key, id and data of the entities that meet all terms.

        Its parameters are the kind, the current time, the limit, the maximum number of entities, the array of each
        term's listings, `below`, and what data must contain. The first column of each row is the number of entities
        before the last two conditions. If that exceeds the maximum, or no entity is left, the other columns are NULL.
        """
        first = 5 + terms
        conditions = "".join(f" AND keys && ${number}::text[]" for number in range(5, first))
        if below:
            conditions, first = f"{conditions} AND sort < ${first}", first + 1
        tests = "".join(f" AND position(${number} IN data) > 0" for number in range(first, first + containing))
        return f"""
WITH met AS MATERIALIZED (
    SELECT sort, id FROM {self.schema}.searched WHERE kind = $1{conditions}
), few AS MATERIALIZED (SELECT * FROM met LIMIT $4 + 1), counted AS (SELECT count(*) AS count FROM few)
SELECT counted.count, found.* FROM counted LEFT JOIN (
    SELECT few.sort, few.id, entity.data FROM few CROSS JOIN LATERAL (
        SELECT data FROM {self.schema}.entity
        WHERE entity.kind = $1 AND entity.id = few.id AND (expires IS NULL OR expires > $2){tests} LIMIT 1
    ) AS entity WHERE (SELECT count FROM counted) <= $4 ORDER BY few.sort DESC LIMIT $3
) AS found ON true ORDER BY found.sort DESC"""

    def search(self, driver: int, others: int, *, below: bool, floor: bool, containing: int) -> str:
        """Return the statement that selects sort key, id and data of entities that meet all terms.

        `driver` is the number of listings of the term to read, and `others` that of the other terms. The parameters are
        kind, the current time, the limit, `below`, `floor`, the index and the partition of each listing to read, the
        index and the array of partitions of each other term, and what data must contain. Data are NULL for an entity
        that has expired.
        """
        bounds, first = "", 4
        for wanted, operator in ((below, "<"), (floor, ">=")):
            if wanted:
                bounds, first = f"{bounds} AND sort {operator} ${first}", first + 1
        arms = " UNION ALL ".join(
            f"SELECT sort, id FROM {self.schema}.entry"
            f" WHERE kind = $1 AND name = ${number} AND part = ${number + 1}{bounds}"
            for number in range(first, first + 2 * driver, 2)
        )
        # As in `page`, LIMIT 1 keeps each look-up apart, so that the driver is read in order, no further than needed.
        look_ups = "".join(
            f""" CROSS JOIN LATERAL (
        SELECT 1 FROM {self.schema}.entry AS other WHERE other.kind = $1 AND other.name = ${number}
        AND other.part = ANY(${number + 1}::text[]) AND other.sort = driver.sort AND other.id = driver.id LIMIT 1
    ) AS term_{number}"""
            for number in range(first + 2 * driver, first + 2 * (driver + others), 2)
        )
        if containing:
            last = first + 2 * (driver + others)
            tests = "".join(f" AND position(${number} IN data) > 0" for number in range(last, last + containing))
            look_ups += f""" CROSS JOIN LATERAL (
        SELECT 1 FROM {self.schema}.entity WHERE entity.kind = $1 AND entity.id = driver.id{tests} LIMIT 1
    ) AS contained"""
        return f"""
SELECT found.sort, found.id, entity.data FROM (
    SELECT driver.sort, driver.id FROM ({arms}) AS driver{look_ups}
    ORDER BY driver.sort DESC, driver.id DESC LIMIT $3
) AS found LEFT JOIN LATERAL (
    SELECT data FROM {self.schema}.entity
    WHERE entity.kind = $1 AND entity.id = found.id AND (expires IS NULL OR expires > $2) LIMIT 1
) AS entity ON true ORDER BY found.sort DESC, found.id DESC"""


class Row(NamedTuple):
    """An entity's row. `mark` is a random number that each write of the entity changes."""

    stored: Stored
    mark: int


class Condition(NamedTuple):
    """The condition and the effect of a commit for one entity.

    The entity must still equal `row`, or still be absent if `row` is None. `write` is its change, or None if the entity
    is only checked. `kind` is the stored name of its class (`EntityMapping.name`).
    """

    kind: str
    id: str
    row: Row | None
    write: Write | None


_PARAMETERS = 34


def commit_values(
    conditions: Iterable[Condition],
    mark: int,
    outbox: Sequence[OutboxRow],
    records: Iterable[IdempotencyRow],
    due: int,
) -> list[Any]:
    """Return the parameters of `Statements.commit`.

    `mark` is the new mark of the written rows (see `Row`). `due` is the current time in microseconds since 1970: an
    idempotency record that has expired by then may be replaced.
    """
    # All transactions lock in the order of their keys, so that they cannot deadlock.
    ordered = sorted(conditions, key=lambda it: (it.kind, it.id))
    rows: list[tuple[Any, ...]] = []
    removed: list[tuple[str, ...]] = []
    added: list[tuple[str, ...]] = []
    for kind, entity_id, row, write in ordered:
        key = escape(entity_id)
        old = (row.stored.version, row.mark) if row else (None, None)
        new = write.new if write else None
        action = "check" if write is None else "write" if new else "delete"
        rows.append((action, kind, key, *old, *((new.version, new.expires, new.keys, new.data) if new else _NOTHING)))
        if write:
            removed += [(kind, name, escape(part), escape(sort), key) for name, part, sort in write.removed]
            added += [(kind, name, escape(part), escape(sort), key) for name, part, sort in write.added]
    return [
        *_columns(rows, 9),
        mark,
        *_columns(removed, 5),
        *_columns(added, 5),
        *_columns([(it.id, micros(it.time), *it[1:4], *it[5:]) for it in outbox], 9),
        *_columns(sorted((escape(it.key), *it[1:]) for it in records), 4),
        due,
    ]


_NOTHING = (None, None, None, None)


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * count


def outbox_row(row: Any) -> OutboxRow:
    """Return a row of the outbox."""
    row_id, time, type_, source, subject, *rest = row
    return OutboxRow(row_id, type_, source, subject, from_micros(time), *rest)
