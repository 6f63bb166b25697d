"""The table of results in Markdown."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tests.bench.measure import Sample
from tests.bench.row import Row


def markdown(rows: list[Row], ours: str = "ours", floor: str = "floor") -> str:
    """Return all rows as a Markdown table, without empty columns."""
    titles = ["work", ours, floor, "ratio", "budget", "CPU per request, ours / floor", "memory"]
    columns = [
        column
        for column in zip(titles, *(_cells(row) for row in rows), strict=True)
        if any(cell != "-" for cell in column[1:])
    ]
    lines = ["| " + " | ".join(cells) + " |" for cells in zip(*columns, strict=True)]
    notes = [f"- {row.name}: {row.note}" for row in rows if row.note]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:], *([""] if notes else []), *notes])


def _cells(row: Row) -> tuple[str, ...]:
    budget = "-" if row.budget is None else f"{'>=' if row.at_least else '<='} {row.budget:g}"
    met = {True: " met", False: " **missed**", None: ""}[row.met]
    ratio = "-" if row.ratio is None or row.unit == "MB" else f"{row.ratio:.2f}"
    cpu = f"{row.ours.cpu_ms:.2f} ms" if row.ours.cpu_ms else "-"
    if row.floor is not None and row.floor.cpu_ms:
        cpu += f" / {row.floor.cpu_ms:.2f} ms"
    memory = f"{row.ours.memory_mb:.0f} MB" if row.ours.memory_mb else "-"
    floor = "-" if row.floor is None else _figure(row.floor, row.unit)
    return (row.name, _figure(row.ours, row.unit), floor, ratio, f"{budget}{met}", cpu, memory)


def _figure(sample: Sample, unit: str) -> str:
    digits = {"s": 3, "ms": 2, "units": 1}.get(unit, 0)
    return f"{sample.rate:,.{digits}f} {unit}"


def write_table(page: Path, table: str, name: str, conditions: str, verb: str = "Measured") -> None:
    """Replace the text between the markers of the table `name` in a page."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = page.read_text().split(begin)
    _, after = rest.split(end)
    when = datetime.now(UTC).date().isoformat()
    page.write_text(f"{before}{begin}\n{table}\n\n{verb} on {when}, {conditions}.\n{end}{after}")
