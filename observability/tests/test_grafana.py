"""The committed dashboards."""

import re
from pathlib import Path

from observability.grafana import generate
from observability.grafana.panels import AUTOSCALING

EMITTED = Path(__file__).with_name("knative_metrics.txt")


def test_the_committed_dashboards_are_what_make_dashboards_would_write() -> None:
    committed = {file.name: file.read_text() for file in generate.FOLDER.glob("*.json")}
    assert committed == generate.rendered()


def test_the_autoscaling_dashboard_asks_for_what_knative_emits() -> None:
    lines = (line.split() for line in EMITTED.read_text().splitlines() if not line.startswith("#"))
    emitted = {name: set(labels) for name, *labels in lines}
    queries = [query for row in AUTOSCALING.values() for panel in row for query in panel.queries.values()]
    assert queries
    for query in queries:
        parts = re.fullmatch(r"(?:max|sum) by \((\w+)\) \((\w+)\)", query)
        assert parts, query
        by, metric = parts.groups()
        assert by in emitted.get(metric, ()), query
