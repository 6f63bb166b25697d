"""Every service scales to zero, is probed, is bounded, and is allowed as little as it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from knative.local import manifests as m
from tests.architecture import domains
from tests.manifests.conftest import ROOT

_BASE = m.load(ROOT / "knative" / "base")
_SERVICES = {m.name_of(s): s for s in _BASE.of(m.SERVING, "Service")}
_DOMAINS = domains(ROOT)


def _pods() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for document in _BASE.documents:
        if "template" in document.get("spec", {}):
            yield m.name_of(document), document["spec"]["template"]["spec"]


@pytest.mark.parametrize(("name", "pod"), list(_pods()))
def test_no_pod_gets_a_token_for_the_api_server(name: str, pod: Mapping[str, Any]) -> None:
    accounts = {m.name_of(a): a for a in _BASE.of("v1", "ServiceAccount")}
    assert pod["automountServiceAccountToken"] is False, name
    assert accounts[pod["serviceAccountName"]]["automountServiceAccountToken"] is False, name


@pytest.mark.parametrize(("name", "pod"), list(_pods()))
def test_every_container_is_probed(name: str, pod: Mapping[str, Any]) -> None:
    for container in pod["containers"]:
        assert {"readinessProbe", "livenessProbe"} <= container.keys(), name
        # To kill or shut out what a busy node keeps waiting makes the node busier.
        for probe in ("readinessProbe", "livenessProbe"):
            assert container[probe].get("timeoutSeconds", 1) >= 5, f"{name}: {probe}"


@pytest.mark.parametrize(("name", "pod"), list(_pods()))
def test_a_slow_start_is_not_killed(name: str, pod: Mapping[str, Any]) -> None:
    for container in pod["containers"]:
        # With a startup probe the activator waits for Kubernetes to find a pod ready, which delays a start from zero.
        assert ("startupProbe" in container) == (name not in _SERVICES), name
        waits = container.get("startupProbe", {"periodSeconds": 0, "failureThreshold": 0})
        delay = container["livenessProbe"].get("initialDelaySeconds", 0)
        assert delay + waits["periodSeconds"] * waits["failureThreshold"] >= 60, name


@pytest.mark.parametrize("service", _SERVICES.values(), ids=_SERVICES)
def test_every_service_scales_to_zero_by_a_metric_of_its_own(service: m.Document) -> None:
    annotations = service["spec"]["template"]["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/class"] == "kpa.autoscaling.knative.dev"
    assert annotations["autoscaling.knative.dev/min-scale"] == "0"
    assert annotations["autoscaling.knative.dev/metric"] in ("concurrency", "rps")
    target = int(annotations["autoscaling.knative.dev/target"])
    hard = service["spec"]["template"]["spec"]["containerConcurrency"]
    assert hard == 0 or target <= hard, "it would refuse work before it scales"
    assert service["spec"]["template"]["spec"]["timeoutSeconds"] >= 60


@pytest.mark.parametrize("domain", _DOMAINS)
def test_calls_without_a_message_do_not_fill_a_pod(domain: str) -> None:
    # queue-proxy counts a gRPC call from its headers on; the process bounds calls whose message does not come.
    assert _SERVICES[domain]["spec"]["template"]["spec"]["containerConcurrency"] == 0


def test_why_a_service_scales_as_it_does_is_said_where_it_is_set() -> None:
    for path in sorted((ROOT / "knative" / "base").glob("*.yaml")):
        lines = path.read_text().splitlines()
        chosen = [n for n, line in enumerate(lines) if "autoscaling.knative.dev/metric:" in line]
        assert not [f"{path.name}:{n + 1}" for n in chosen if not lines[n - 1].lstrip().startswith("# ")]


@pytest.mark.parametrize("domain", _DOMAINS)
def test_a_domain_is_a_grpc_service_and_an_event_function_of_one_image(domain: str) -> None:
    rpc, events = m.container_of(_SERVICES[domain]), m.container_of(_SERVICES[f"{domain}-events"])
    assert rpc["image"] == events["image"] == f"shop/functions-{domain}"
    assert (rpc["ports"][0]["name"], events["ports"][0]["name"]) == ("h2c", "http1")
    assert "grpc" in rpc["readinessProbe"]
    assert events["readinessProbe"]["httpGet"]["path"] == "/healthz/ready"
    roles = [m.environment_of(_SERVICES[name], _BASE)["ROLE"] for name in (domain, f"{domain}-events")]
    assert roles == ["rpc", "events"]


@pytest.mark.parametrize("kind", ["Service", "StatefulSet"])
def test_every_pod_names_the_port_of_its_metrics_which_takes_no_requests(kind: str) -> None:
    templates = [d["spec"]["template"] for d in _BASE.documents if d["kind"] == kind and "template" in d["spec"]]
    assert templates
    port = _BASE.config_maps["settings"]["METRICS_PORT"]
    for template in templates:
        annotations = template["metadata"]["annotations"]
        assert (annotations["prometheus.io/scrape"], annotations["prometheus.io/port"]) == ("true", port)
        taken = [p["containerPort"] for c in template["spec"]["containers"] for p in c["ports"]]
        assert int(port) not in taken


def test_no_service_has_an_address_of_its_own_outside_the_cluster() -> None:
    label = "networking.knative.dev/visibility"
    for name, service in _SERVICES.items():
        assert service["metadata"]["labels"][label] == "cluster-local", name


def test_no_secret_stands_in_a_manifest() -> None:
    assert not _BASE.of("v1", "Secret")
    for service in _SERVICES.values():
        for variable in m.container_of(service).get("env", ()):
            if any(word in variable["name"] for word in ("PASSWORD", "SECRET", "TOKEN", "API_KEY")):
                assert "valueFrom" in variable, variable["name"]
