"""Components compose: every sensible combination renders, is valid, and is told what belongs together."""

from __future__ import annotations

import os
from functools import cache
from itertools import cycle, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from events.catalog import CATALOG
from functions.runtime.settings import load
from knative.local import manifests as m
from knative.local.parts import GATEWAY
from tests.architecture import domains
from tests.manifests import checks, crds, variables
from tests.manifests.conftest import ROOT
from tests.manifests.rendered import of, pods, render
from tests.manifests.test_checks import SUBSCRIPTIONS

COMPONENTS = ROOT / "knative" / "components"
STORES = {
    "postgres": ["store/postgres"],
    "postgres-by-an-operator": ["store/postgres", "store/cloudnative-pg"],
    "postgres-server": ["dev", "store/postgres", "store/postgres-server", "node-volumes"],
    "dynamodb": ["store/dynamodb"],
    "dynamodb-local": ["dev", "store/dynamodb", "store/dynamodb-local", "node-volumes"],
}
BROKERS = ["in-memory", "kafka"]
PAYMENTS = ["", "stripe"]
MAIL = ["", "smtp", "ses"]
EXTRAS = {
    "alone": [],
    "with everything": ["observability", "event-policy", "certificates", "secrets/external"],
}
# Each store with each broker, alone and with everything; payments and mail take turns, so that each meets each.
COMBINATIONS = [
    (store, broker, payments, mail, extras)
    for (store, broker, extras), (payments, mail) in zip(
        product(STORES, BROKERS, EXTRAS), cycle(product(PAYMENTS, MAIL)), strict=False
    )
]
every = pytest.mark.parametrize(
    ("store", "broker", "payments", "mail", "extras"),
    COMBINATIONS,
    ids=["-".join(filter(None, combination)) for combination in COMBINATIONS],
)


@cache
def composed(store: str, broker: str, payments: str, mail: str, extras: str) -> tuple[m.Document, ...]:
    """What kustomize makes of the base, the TLS ingress and these components."""
    chosen = [f"broker/{broker}", *STORES[store], *EXTRAS[extras]]
    chosen += [f"payments/{payments}"] if payments else []
    chosen += [f"mail/{mail}"] if mail else []
    if extras != "alone":
        secrets = {"store/postgres": "postgres", "payments/stripe": "stripe", f"mail/{mail}": mail}
        chosen += [f"secrets/external-{name}" for part, name in secrets.items() if part in chosen]
        chosen = [name for name in chosen if not (name.startswith("secrets/") and "dev" in chosen)]
    paths = [COMPONENTS / name for name in ("fence", *chosen)]
    paths += [ROOT / "istio" / "mesh"] if extras != "alone" else []
    paths += [COMPONENTS / ("dev-images" if "dev" in chosen else "production")]
    with TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        resources = [ROOT / "knative" / "base", ROOT / "istio" / ("dev" if "dev" in chosen else "production")]
        kustomization: dict[str, Any] = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(path, root) for path in resources],
            "components": [os.path.relpath(path, root) for path in paths],
        }
        (root / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return render(str(root))


def settings(documents: tuple[m.Document, ...]) -> dict[str, str]:
    (found,) = (d["data"] for d in of(documents, "ConfigMap") if m.name_of(d).startswith("settings-"))
    return dict(found)


@every
def test_a_combination_is_valid_and_whole(store: str, broker: str, payments: str, mail: str, extras: str) -> None:
    documents = composed(store, broker, payments, mail, extras)
    own = [document for document in documents if not checks.is_custom(document)]
    assert list(checks.faulty_fields(own, {})) == []
    mesh = extras != "alone"
    assert list(checks.unrestricted(documents)) == []
    assert list(checks.loose_events(documents, CATALOG, SUBSCRIPTIONS)) == []
    assert list(checks.missing_services(documents, domains(ROOT))) == []
    identities = [(d["apiVersion"], d["kind"], d["metadata"].get("namespace"), m.name_of(d)) for d in documents]
    assert len(identities) == len(set(identities))
    assert bool(of(documents, "AuthorizationPolicy")) is mesh
    images = {container["image"] for _, spec in pods(documents) for container in spec["containers"]}
    assert not [image for image in images if image.startswith("shop/")], "each is one that can be had"


@every
def test_the_custom_kinds_of_a_combination_are_valid(
    store: str, broker: str, payments: str, mail: str, extras: str, schemas: crds.Schemas
) -> None:
    documents = composed(store, broker, payments, mail, extras)
    custom = [d for d in documents if checks.is_custom(d) and (d["apiVersion"], d["kind"]) in schemas]
    assert custom
    assert list(checks.faulty_fields(custom, schemas)) == []


@every
def test_a_combination_tells_each_service_what_belongs_together(
    store: str, broker: str, payments: str, mail: str, extras: str
) -> None:
    documents = composed(store, broker, payments, mail, extras)
    shared = settings(documents)
    assert shared["STORE_URL"].partition(":")[0] == {"p": "postgresql", "d": "dynamodb"}[store[0]]
    assert ("endpoint=" in shared["STORE_URL"]) is (store == "dynamodb-local")
    (channel,) = of(documents, "Broker")
    kind = channel["metadata"]["annotations"]["eventing.knative.dev/broker.class"]
    assert (kind == "Kafka") is (broker == "kafka") is ("kafka" in shared["BROKER_URL"])
    assert shared["PAYMENT_PROVIDER"] == (payments or "simulated")
    assert shared.get("MAIL_CHANNEL", "") == mail
    assert shared["SHOP_ENV"] == ("development" if "dev" in STORES[store] else "production")
    parts = [*domains(ROOT), GATEWAY]
    assert not set.intersection(*(set(variables.unknown(part, shared)) for part in parts))
    secrets: dict[str, set[str]] = {}
    for service in (d for d in documents if d["apiVersion"] == m.SERVING):
        part, own = m.name_of(service).removesuffix("-events"), m.container_of(service)["env"]
        assert not list(variables.unknown(part, (each["name"] for each in own)))
        load(variables.settings_of(part), {**shared, **{each["name"]: each.get("value", "") for each in own}})
        for each in own:
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            if reference and not reference.get("optional"):
                secrets.setdefault(reference["name"], set()).add(m.name_of(service))
    keys = {f"service-key-{part}" for part in parts}
    assert secrets.keys() - keys == {*({"stripe"} if payments else ()), *({"smtp"} if mail == "smtp" else ())}
    if payments:
        assert secrets["stripe"] == {"payments", "payments-events"}
    made = {m.name_of(d) for d in of(documents, "ExternalSecret")}
    if made:
        stores = {f"store-{name}" for name in ("admin", "backup", *domains(ROOT))} if "postgres" in store else set()
        mails = {"smtp": {"smtp"}, "ses": {"mail-events"}}.get(mail, set())
        assert made == keys | {"admin"} | stores | mails | ({"stripe"} if payments else set())
