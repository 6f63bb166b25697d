"""A row of the table, and the computation of its ratio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tests.bench.measure import Sample, middle


@dataclass
class Row:
    """A row of the table: `ratio` is ours to the floor; `budget` is its bound (`at_least` or at most), or None."""

    name: str
    ours: Sample
    floor: Sample | None = None
    ratio: float | None = None
    budget: float | None = None
    at_least: bool = True
    unit: str = "/s"
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Return whether the budget holds; None if there is no budget."""
        if self.ratio is None or self.budget is None:
            return None
        return self.ratio >= self.budget if self.at_least else self.ratio <= self.budget


Drive = Callable[[], Awaitable[Sample]]
Pair = tuple[Sample, Sample]


async def turns(floor: Drive, ours: Drive, rounds: int) -> list[Pair]:
    """Measure floor and ours in turn: floor, ours, floor, ours, and so on."""
    return [(await floor(), await ours()) for _ in range(rounds)]


def compared(name: str, pairs: Sequence[Pair], budget: float | None, **more: Any) -> Row:
    """Return the row of measured pairs; its ratio is the median of the ratios of the rounds."""
    ratio = median(mine.rate / bare.rate for bare, mine in pairs)
    floors, mine = middle([bare for bare, _ in pairs]), middle([mine for _, mine in pairs])
    return Row(name, mine, floors, ratio, budget, **more)


async def in_turn(name: str, floor: Drive, ours: Drive, rounds: int, budget: float, **more: Any) -> Row:
    """Measure floor and ours in turn, and return the row that compares them."""
    return compared(name, await turns(floor, ours, rounds), budget, **more)
