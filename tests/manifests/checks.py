"""The rules of manifests: functions from documents to complaints, which name the object and the field."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import kubernetes_validate

from knative.local import manifests as m
from knative.local.broker.filters import event_types
from tests.manifests import crds

Subscriptions = Collection[tuple[str, str]]
"""Pairs of event type and domain."""

KUBERNETES = "1.34"
"""The release whose schemas the built-in kinds must match."""

_PLATFORM = (".knative.dev/", ".istio.io/")
"""The groups of the kinds that every cluster of the platform has."""
_CUSTOM = (
    *_PLATFORM,
    "cnpg.io/",
    "kafka.strimzi.io/",
    "external-secrets.io/",
    "cert-manager.io/",
)
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def faulty_fields(documents: Iterable[m.Document], known: crds.Schemas) -> Iterator[str]:
    """Yield fields that an API server would refuse or silently drop.

    The schemas of the kinds of Knative, Istio and other operators are in `known`; if it is empty, they are skipped.
    A kind of another operator is skipped if `known` has no kind of its group.
    """
    groups = {_group(api_version) for api_version, _ in known}
    for document in documents:
        kind = (document["apiVersion"], document["kind"])
        if kind in known:
            yield from crds.faults(document, known)
        elif not is_custom(document):
            yield from _faults(json.dumps(document))
        elif _group(kind[0]) in groups or (known and any(group in kind[0] for group in _PLATFORM)):
            yield f"{_title(document)}: no CustomResourceDefinition has {kind[0]}"


def is_custom(document: m.Document) -> bool:
    """Return whether a kind is defined by Knative, Istio or another operator."""
    return any(group in document["apiVersion"] for group in _CUSTOM)


def _group(api_version: str) -> str:
    return api_version.partition("/")[0]


@cache
def _faults(text: str) -> tuple[str, ...]:
    """Return the faults of a document in JSON; cached, because validation is slow and overlays share most documents."""
    document = json.loads(text)
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(str(part) for part in error.absolute_path)
        return (f"{_title(document)}: {where}: {error.message}",)
    except kubernetes_validate.SchemaNotFoundError as error:
        return (f"{_title(document)}: Kubernetes {KUBERNETES} knows no such kind in {error.api_version}",)
    return ()


def unrestricted(documents: Iterable[m.Document], *, writable: bool = False) -> Iterator[str]:
    """Yield violations of the restricted pod security standard.

    Beyond the standard, containers need resource requests and limits and, unless `writable` is set, a read-only file
    system.
    """
    for document in documents:
        for where, spec in _pods(document):
            for name in ("hostNetwork", "hostPID", "hostIPC"):
                if spec.get(name):
                    yield f"{where}: {name}"
            for volume in spec.get("volumes") or ():
                for kind in volume.keys() - {"name"} - _VOLUMES:
                    yield f"{where}: volume {volume['name']}: {kind}"
            for container in (c for kind in _CONTAINERS for c in spec.get(kind) or ()):
                for fault in _container(container, spec.get("securityContext") or {}, writable):
                    yield f"{where}: container {container['name']}: {fault}"


def _container(container: Mapping[str, Any], pod: Mapping[str, Any], writable: bool) -> Iterator[str]:
    own = container.get("securityContext") or {}
    both = {**pod, **own}
    capabilities = own.get("capabilities") or {}
    wrong = {
        "securityContext.runAsNonRoot is not true": both.get("runAsNonRoot") is not True,
        "securityContext.runAsUser is root": both.get("runAsUser") == 0,
        "securityContext.privileged": bool(own.get("privileged")),
        "securityContext.allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is not False,
        "securityContext.capabilities does not drop ALL": "ALL" not in capabilities.get("drop", ()),
        "securityContext.capabilities adds some": not set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"},
        "securityContext.procMount": own.get("procMount", "Default") != "Default",
        "securityContext.seccompProfile is not RuntimeDefault": (both.get("seccompProfile") or {}).get("type")
        not in ("RuntimeDefault", "Localhost"),
        "securityContext.readOnlyRootFilesystem is not true": not writable
        and own.get("readOnlyRootFilesystem") is not True,
        "hostPort": any("hostPort" in port for port in container.get("ports") or ()),
    }
    yield from (fault for fault, is_so in wrong.items() if is_so)
    for bound in ("requests", "limits"):
        missing = {"cpu", "memory"} - (container.get("resources") or {}).get(bound, {}).keys()
        if missing:
            yield f"resources.{bound} has no {' and no '.join(sorted(missing))}"


def loose_events(
    documents: Iterable[m.Document], catalogue: Mapping[str, Any], subscribers: Subscriptions
) -> Iterator[str]:
    """Yield differences of the Triggers and EventTypes from the catalogue and from the existing services."""
    documents = list(documents)
    triggers = [d for d in documents if (d["apiVersion"], d["kind"]) == (m.EVENTING, "Trigger")]
    services = {m.name_of(d) for d in documents if d["apiVersion"] == m.SERVING}
    seen: dict[tuple[str, str], str] = {}
    for trigger in triggers:
        service = trigger["spec"]["subscriber"]["ref"]["name"]
        if service not in services:
            yield f"{_title(trigger)}: there is no service {service}"
        for kind in event_types(trigger["spec"]) or ("*",):
            if kind not in catalogue:
                yield f"{_title(trigger)}: {kind} is no type of events/catalog.py"
            if other := seen.get((kind, service)):
                yield f"{_title(trigger)}: {service} gets {kind} by {other} already"
            seen[kind, service] = m.name_of(trigger)
    wanted = {(kind, f"{domain}-events") for kind, domain in subscribers}
    yield from (f"{service} has no Trigger for {kind}" for kind, service in sorted(wanted - seen.keys()))
    yield from (f"the catalogue does not know {service} for {kind}" for kind, service in sorted(seen.keys() - wanted))
    types = {m.name_of(d): d["spec"]["type"] for d in documents if d["kind"] == "EventType"}
    yield from (f"{kind} has no EventType" for kind in sorted(catalogue.keys() - set(types.values())))
    yield from (
        f"EventType/{name}: the catalogue has no {kind}" for name, kind in types.items() if kind not in catalogue
    )


def missing_services(documents: Iterable[m.Document], domains: Iterable[str]) -> Iterator[str]:
    """Yield services of a domain that are missing, and services that belong to no domain."""
    there = {m.name_of(d) for d in documents if d["apiVersion"] == m.SERVING}
    wanted = {name for domain in domains for name in (domain, f"{domain}-events")} | {"gateway"}
    yield from (f"there is no Service {name}" for name in sorted(wanted - there))
    yield from (f"Service {name} is no domain's" for name in sorted(there - wanted))


def _pods(document: m.Document) -> Iterator[tuple[str, Mapping[str, Any]]]:
    spec = document.get("spec") or {}
    if document["kind"] == "Pod":
        yield _title(document), spec
    elif document["kind"] == "CronJob":
        yield _title(document), spec["jobTemplate"]["spec"]["template"]["spec"]
    elif "template" in spec:
        yield _title(document), spec["template"]["spec"]


def _title(document: m.Document) -> str:
    return f"{document['kind']}/{m.name_of(document)}"
