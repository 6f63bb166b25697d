"""Every manifest, as kustomize renders it, passes every check; and each check finds what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import yaml

from events.catalog import CATALOG, SUBSCRIBERS
from knative.local import manifests as m
from tests.architecture import domains
from tests.manifests import checks, crds
from tests.manifests.conftest import ROOT
from tests.manifests.rendered import folders, of, render

everything = pytest.mark.parametrize("folder", folders())
platforms = pytest.mark.parametrize(
    "folder",
    [f for f in folders() if f.startswith(("knative/base", "knative/overlays/")) and f.count("/") < 3],
)
ALLOWED = {
    "observability": [  # the nodes' files are theirs, and root's
        "DaemonSet/log-collector: volume pods: hostPath",
        "DaemonSet/log-collector: container log-collector: securityContext.runAsNonRoot is not true",
        "DaemonSet/log-collector: container log-collector: securityContext.runAsUser is root",
    ],
}
SUBSCRIPTIONS = {(payload.TYPE, domain) for payload, names in SUBSCRIBERS.items() for domain in names}


@everything
def test_every_field_of_kubernetes_own_kinds_is_known(folder: str) -> None:
    own = [document for document in render(folder) if not checks.is_custom(document)]
    assert list(checks.faulty_fields(own, {})) == []


@everything
def test_every_field_of_knatives_istios_and_other_operators_kinds_is_known(folder: str, schemas: crds.Schemas) -> None:
    custom = [document for document in render(folder) if checks.is_custom(document)]
    assert list(checks.faulty_fields(custom, schemas)) == []


@everything
def test_every_pod_meets_the_restricted_standard(folder: str) -> None:
    assert list(checks.unrestricted(render(folder))) == ALLOWED.get(folder, [])


@platforms
def test_triggers_event_types_and_catalogue_say_the_same(folder: str) -> None:
    assert list(checks.loose_events(render(folder), CATALOG, SUBSCRIPTIONS)) == []


@platforms
def test_each_domain_has_its_two_services(folder: str) -> None:
    assert list(checks.missing_services(render(folder), domains(ROOT))) == []


@pytest.fixture
def sound() -> list[dict[str, Any]]:
    """The base, to be broken."""
    return [dict(deepcopy(document)) for document in m.load(ROOT / "knative" / "base").documents]


def _named(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(d for d in documents if (d["kind"], d["metadata"]["name"]) == (kind, name))


def _container(documents: list[dict[str, Any]], name: str) -> dict[str, Any]:
    services = (d for d in documents if d["apiVersion"] == m.SERVING)
    found: dict[str, Any] = next(s for s in services if m.name_of(s) == name)["spec"]["template"]["spec"]["containers"][
        0
    ]
    return found


def test_a_misspelt_field_is_named(sound: list[dict[str, Any]], schemas: crds.Schemas) -> None:
    _named(sound, "Trigger", "orders-events")["spec"]["delivery"]["retries"] = 5
    (fault,) = checks.faulty_fields(sound, schemas)
    assert "orders-events" in fault
    assert "retries" in fault


def test_a_misspelt_field_of_kubernetes_own_kinds_is_named(sound: list[dict[str, Any]]) -> None:
    _named(sound, "StatefulSet", "dead-letters")["spec"]["replica"] = 1
    (fault,) = checks.faulty_fields(sound, {})
    assert "StatefulSet/dead-letters" in fault
    assert "replica" in fault


def test_a_kind_that_nobody_defines_is_named(sound: list[dict[str, Any]], schemas: crds.Schemas) -> None:
    _named(sound, "PingSource", "sweep")["apiVersion"] = "sources.knative.dev/v0"
    _named(sound, "StatefulSet", "dead-letters")["apiVersion"] = "apps/v0"
    ping, dead_letters = sorted(checks.faulty_fields(sound, schemas))
    assert "PingSource/sweep" in ping
    assert "StatefulSet/dead-letters" in dead_letters


def test_an_operator_whose_definitions_are_not_here_is_not_judged(schemas: crds.Schemas) -> None:
    database = {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {"name": "postgres"}}
    platform = {key: schema for key, schema in schemas.items() if "cnpg.io" not in key[0]}
    assert list(checks.faulty_fields([database], platform)) == []
    other = {**platform, ("postgresql.cnpg.io/v1", "Pooler"): {}}
    assert len(list(checks.faulty_fields([database], other))) == 1


def test_a_group_of_knative_that_does_not_exist_is_named(sound: list[dict[str, Any]], schemas: crds.Schemas) -> None:
    _named(sound, "PingSource", "sweep")["apiVersion"] = "source.knative.dev/v1"
    assert len(list(checks.faulty_fields(sound, schemas))) == 1


def _broken_containers() -> Iterator[tuple[str, dict[str, Any], str]]:
    yield "no context at all", {"securityContext": None}, "runAsNonRoot"
    context: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for field in context:
        yield f"without {field}", {"securityContext": {k: v for k, v in context.items() if k != field}}, field
    for field, value in {
        "capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]},
        "privileged": True,
        "procMount": "Unmasked",
        "runAsUser": 0,
    }.items():
        yield f"{field}: {value}", {"securityContext": {**context, field: value}}, field
    yield "a port of the node", {"ports": [{"containerPort": 8080, "hostPort": 80}]}, "hostPort"
    yield (
        "unbounded",
        {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1"}}},
        "memory",
    )


_BROKEN = list(_broken_containers())


@pytest.mark.parametrize(("broken", "named"), [case[1:] for case in _BROKEN], ids=[case[0] for case in _BROKEN])
def test_a_container_that_may_too_much_is_named(
    sound: list[dict[str, Any]], broken: dict[str, Any], named: str
) -> None:
    _container(sound, "orders").update(broken)
    faults = list(checks.unrestricted(sound))
    assert faults
    assert all(fault.startswith("Service/orders: container rpc: ") for fault in faults)
    assert any(named in fault for fault in faults)


def test_a_container_that_only_runs_at_the_start_may_not_more(sound: list[dict[str, Any]]) -> None:
    pod = _named(sound, "StatefulSet", "dead-letters")["spec"]["template"]["spec"]
    pod["initContainers"] = [{**pod["containers"][0], "name": "early", "securityContext": {}}]
    assert any("container early" in fault for fault in checks.unrestricted(sound))


@pytest.mark.parametrize(
    "pod", [{"hostNetwork": True}, {"volumes": [{"name": "node", "hostPath": {"path": "/"}}]}], ids=str
)
def test_a_pod_that_reaches_into_its_node_is_named(sound: list[dict[str, Any]], pod: dict[str, Any]) -> None:
    _named(sound, "StatefulSet", "dead-letters")["spec"]["template"]["spec"].update(pod)
    (fault,) = checks.unrestricted(sound)
    assert fault.startswith("StatefulSet/dead-letters: ")


def test_a_trigger_for_an_unknown_type_is_named(sound: list[dict[str, Any]]) -> None:
    _named(sound, "Trigger", "users-events")["spec"]["filters"] = [{"exact": {"type": "shop.order.lost.v1"}}]
    faults = list(checks.loose_events(sound, CATALOG, SUBSCRIPTIONS))
    assert "Trigger/users-events: shop.order.lost.v1 is no type of events/catalog.py" in faults
    assert "users-events has no Trigger for dev.knative.sources.ping" in faults


def test_a_trigger_for_events_of_any_type_is_named(sound: list[dict[str, Any]]) -> None:
    del _named(sound, "Trigger", "users-events")["spec"]["filters"]
    faults = list(checks.loose_events(sound, CATALOG, SUBSCRIPTIONS))
    assert "Trigger/users-events: * is no type of events/catalog.py" in faults


def test_a_subscriber_without_a_trigger_is_named(sound: list[dict[str, Any]]) -> None:
    any_of = _named(sound, "Trigger", "payments-events")["spec"]["filters"][0]["any"]
    any_of.remove({"exact": {"type": "shop.stock.reserved.v1"}})
    faults = list(checks.loose_events(sound, CATALOG, SUBSCRIPTIONS))
    assert faults == ["payments-events has no Trigger for shop.stock.reserved.v1"]


def test_a_trigger_for_a_service_that_is_not_there_is_named(sound: list[dict[str, Any]]) -> None:
    _named(sound, "Trigger", "orders-events")["spec"]["subscriber"]["ref"]["name"] = "order-events"
    faults = list(checks.loose_events(sound, CATALOG, SUBSCRIPTIONS))
    assert "Trigger/orders-events: there is no service order-events" in faults


def test_a_second_trigger_for_the_same_is_named(sound: list[dict[str, Any]]) -> None:
    twin = deepcopy(_named(sound, "Trigger", "users-events"))
    twin["metadata"]["name"] = "users-again"
    twin["spec"]["filters"] = [{"exact": {"type": "dev.knative.sources.ping"}}]
    faults = list(checks.loose_events([*sound, twin], CATALOG, SUBSCRIPTIONS))
    assert faults == ["Trigger/users-again: users-events gets dev.knative.sources.ping by users-events already"]


def test_an_event_type_too_few_and_one_too_many_are_named(sound: list[dict[str, Any]]) -> None:
    _named(sound, "EventType", "shop.order.placed.v1")["spec"]["type"] = "shop.order.placed.v9"
    faults = list(checks.loose_events(sound, CATALOG, SUBSCRIPTIONS))
    assert faults == [
        "shop.order.placed.v1 has no EventType",
        "EventType/shop.order.placed.v1: the catalogue has no shop.order.placed.v9",
    ]


def test_a_service_too_few_and_one_too_many_are_named(sound: list[dict[str, Any]]) -> None:
    service = next(d for d in sound if d["apiVersion"] == m.SERVING and m.name_of(d) == "orders-events")
    service["metadata"]["name"] = "order-events"
    faults = list(checks.missing_services(sound, domains(ROOT)))
    assert faults == ["there is no Service orders-events", "Service order-events is no domain's"]


def test_the_job_of_skaffold_verify_is_one_that_the_namespace_admits() -> None:
    job = [yaml.safe_load((ROOT / "tests" / "e2e" / "job.yaml").read_text())]
    assert list(checks.faulty_fields(job, {})) == []
    assert list(checks.unrestricted(job)) == []


def test_what_is_checked_is_all_there_is() -> None:
    assert {
        "knative/base",
        "knative/overlays/dev",
        "knative/overlays/dev-dynamodb",
        "knative/overlays/dev-mesh",
        "knative/overlays/onprem",
        "knative/overlays/aws",
        "observability",
    } <= set(folders())
    assert of(render("knative/overlays/dev-mesh"), "AuthorizationPolicy"), "the mesh component is in here"
