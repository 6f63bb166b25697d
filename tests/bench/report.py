"""The table, for people."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tests.bench.measure import Sample
from tests.bench.row import Row

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def markdown(rows: list[Row]) -> str:
    """All rows as a Markdown table."""
    lines = [
        "| work | ours | floor | ratio | budget | CPU per request, ours / floor | memory |",
        "|---|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
    ]
    notes = [f"- {row.name}: {row.note}" for row in rows if row.note]
    return "\n".join([*lines, "", *notes])


def _line(row: Row) -> str:
    budget = "-" if row.budget is None else f"{'>=' if row.at_least else '<='} {row.budget:g}"
    met = {True: " met", False: " **missed**", None: ""}[row.met]
    ratio = "-" if row.ratio is None or row.unit == "MB" else f"{row.ratio:.2f}"
    cpu = f"{row.ours.cpu_ms:.2f} ms" if row.ours.cpu_ms else "-"
    if row.floor is not None and row.floor.cpu_ms:
        cpu += f" / {row.floor.cpu_ms:.2f} ms"
    memory = f"{row.ours.memory_mb:.0f} MB" if row.ours.memory_mb else "-"
    floor = "-" if row.floor is None else _figure(row.floor, row.unit)
    return f"| {row.name} | {_figure(row.ours, row.unit)} | {floor} | {ratio} | {budget}{met} | {cpu} | {memory} |"


def _figure(sample: Sample, unit: str) -> str:
    return f"{sample.rate:,.3f} s" if unit == "s" else f"{sample.rate:,.0f} {unit}"


def write_readme(readme: Path, table: str) -> None:
    """Replace what stands between the markers."""
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    when = datetime.now(UTC).date().isoformat()
    readme.write_text(f"{before}{BEGIN}\n{table}\n\nMeasured on {when}, two cores, 32 callers.\n{END}{after}")
