"""Planning of `Store.search` for databases that can join: which term to begin with, and where to stop.

A statement reads the entries of the rarest term, newest first, and looks up each in the other terms. The rarest term is
found by counting. A count stops at `COUNTED`, so that it costs the same in a store of any size. If all counts reach
`COUNTED`, the first term is used. One call then reads the counted entries and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from functions.runtime.store.port import WORDS, Term

FEW = 200
"""Maximum number of matches that a database reads together and sorts."""
SEARCHED = b'["words",'
"""What the stored index keys of an entity contain if it has an entry in `WORDS`."""
COUNTED = 500
"""Maximum number of entries that are counted in a listing, and that one call reads of it."""


class Query(NamedTuple):
    """A search: the entities that meet all terms, with sort keys below `below` and data that contain `containing`."""

    kind: str
    terms: Sequence[Term]
    below: str | None
    containing: Sequence[bytes]

    def listings(self) -> list[tuple[str, str]]:
        """Return the (index, partition) pairs of all terms, in order."""
        return [(term.name, partition) for term in self.terms for partition in term.partitions]

    def is_indexed(self) -> bool:
        """Return whether the matches are among the entities of which the databases also keep an index of all terms."""
        return len(self.terms) > 1 and any(term.name == WORDS for term in self.terms)


class SearchPlan(NamedTuple):
    """A statement's listings, as (index, partition): those to read, and those of each other term to look up.

    `floor` is the lowest sort key to read; below it there may be more.
    """

    driver: Sequence[tuple[str, str]]
    others: Sequence[Sequence[tuple[str, str]]]
    floor: str | None

    def result(
        self, rows: Sequence[tuple[str, str, bytes | None]], limit: int
    ) -> tuple[list[tuple[str, str, bytes]], str | None]:
        """Return the entities among the statement's rows, and the sort key below which there may be more.

        An entity in two listings of the driver has two rows. Data are None for an entity that has expired.
        """
        found = {entity_id: (sort, entity_id, data) for sort, entity_id, data in rows if data is not None}
        return list(found.values()), rows[-1][0] if len(rows) == limit else self.floor


def plan_search(query: Query, counts: Iterable[tuple[int, str]]) -> SearchPlan | None:
    """Return the plan, or None if nothing meets all terms.

    `counts` has, for each of `query.listings()`, the number of entries and the lowest sort key among them.
    """
    counted = iter(counts)
    terms = [
        [(count, low, (term.name, part)) for part in term.partitions for count, low in [next(counted)] if count]
        for term in query.terms
    ]
    if not all(terms):
        return None
    rarest = min(terms, key=lambda term: sum(count for count, *_ in term))
    floor = max((low for count, low, _ in rarest if count >= COUNTED), default=None)
    others = [[listing for *_, listing in term] for term in terms if term is not rarest]
    return SearchPlan([listing for *_, listing in rarest], others, floor if others or query.containing else None)
