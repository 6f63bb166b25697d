"""One line of the table, and how a ratio comes about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tests.bench.measure import Sample, middle


@dataclass
class Row:
    """One line: `ratio` is ours to the floor, `budget` its bound (`at_least` or at most), None where none is
    set.
    """

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
        """Whether the budget holds; None without one."""
        if self.ratio is None or self.budget is None:
            return None
        return self.ratio >= self.budget if self.at_least else self.ratio <= self.budget


Drive = Callable[[], Awaitable[Sample]]
Pair = tuple[Sample, Sample]


async def turns(floor: Drive, ours: Drive, rounds: int) -> list[Pair]:
    """Floor, ours, floor, ours, ..."""
    return [(await floor(), await ours()) for _ in range(rounds)]


def compared(name: str, pairs: Sequence[Pair], budget: float, **more: Any) -> Row:
    """The row of what was measured in turn; the ratio is the median of the rounds' own."""
    ratio = median(mine.rate / bare.rate for bare, mine in pairs)
    floors, mine = middle([bare for bare, _ in pairs]), middle([mine for _, mine in pairs])
    return Row(name, mine, floors, ratio, budget, **more)


async def in_turn(name: str, floor: Drive, ours: Drive, rounds: int, budget: float, **more: Any) -> Row:
    """Measure in turn, and compare."""
    return compared(name, await turns(floor, ours, rounds), budget, **more)
