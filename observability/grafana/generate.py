"""`make dashboards`: writes the dashboards' JSON, which is committed; a test fails when it is stale."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from observability.grafana.panels import DASHBOARDS, P, Rows

FOLDER = Path(__file__).parent / "dashboards"
_SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")


def rendered() -> dict[str, str]:
    """Return the JSON of each dashboard by file name."""
    return {f"{uid}.json": _dashboard(uid, title, rows) for uid, (title, rows) in DASHBOARDS.items()}


def write(folder: Path = FOLDER) -> None:
    """Write the dashboards into `folder`."""
    for name, text in rendered().items():
        (folder / name).write_text(text)


def _dashboard(uid: str, title: str, rows: Rows) -> str:
    board = dashboard.Dashboard(title).uid(uid).tags(["shop"]).time("now-1h", "now").refresh("30s")
    board = board.timezone("browser").readonly()
    for row, panels in rows.items():
        board = board.with_row(dashboard.Row(row))
        for panel in panels:
            board = board.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _panel(panel: P) -> timeseries.Panel:
    shown = timeseries.Panel().title(panel.title).unit(panel.unit).datasource(_SOURCE).span(8).height(7)
    for number, (legend, query) in enumerate(panel.queries.items()):
        target = prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + number))
        shown = shown.with_target(target.datasource(_SOURCE).exemplar("_bucket" in query))
    return shown


if __name__ == "__main__":
    write()
