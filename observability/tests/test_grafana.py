"""The committed dashboards."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability.grafana import generate
from observability.grafana.panels import AUTOSCALING

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "observability" / "grafana" / "provisioning" / "datasources" / "shop.yaml"
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


def environments() -> dict[str, dict[str, str]]:
    """Grafana's, in compose.yaml and in a cluster."""
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["grafana"]["environment"]
    documents = yaml.safe_load_all((ROOT / "observability" / "cluster" / "grafana.yaml").read_text())
    (deployment,) = (d for d in documents if d["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {"compose": compose, "cluster": {v["name"]: v["value"] for v in container["env"]}}


@pytest.mark.parametrize("where", ["compose", "cluster"])
def test_grafana_is_told_where_each_source_of_data_is_and_has_its_plugin(where: str) -> None:
    given = environments()[where]
    wanted = set(re.findall(r"(?<!\$)\$\{(\w+)\}", SOURCES.read_text()))
    assert wanted
    assert wanted <= given.keys()
    plugins = [plugin.partition("@")[0] for plugin in given["GF_PLUGINS_PREINSTALL"].split(",")]
    types = {source["type"] for source in yaml.safe_load(SOURCES.read_text())["datasources"]}
    assert types == {"prometheus", "jaeger", *plugins}


def test_exemplars_and_lines_of_logs_lead_to_their_trace_and_a_trace_to_its_logs() -> None:
    sources: dict[str, Any] = {s["uid"]: s for s in yaml.safe_load(SOURCES.read_text())["datasources"]}
    (exemplar,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    (line,) = sources["logs"]["jsonData"]["derivedFields"]
    back = sources["jaeger"]["jsonData"]["tracesToLogsV2"]
    assert exemplar["datasourceUid"] == line["datasourceUid"] == "jaeger"
    assert (line["matcherType"], line["matcherRegex"]) == ("label", "trace_id")
    assert (back["datasourceUid"], back["query"]) == ("logs", 'trace_id:="$${__trace.traceId}"')


def test_every_panel_asks_a_source_that_is_provisioned() -> None:
    provisioned = {(s["type"], s["uid"]) for s in yaml.safe_load(SOURCES.read_text())["datasources"]}
    asked = re.findall(r'"datasource": {\s+"type": "(.+)",\s+"uid": "(.+)"', "".join(generate.rendered().values()))
    assert asked
    assert set(asked) <= provisioned
