"""What a start in production demands, its overlays give: each service against the Secrets that it names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import pytest

from events.service_keys import PrivateKey, ServiceKeys
from functions.notifications.bootstrap import open_channel
from functions.notifications.settings import Settings as Notifications
from functions.payments.bootstrap import open_provider
from functions.payments.settings import Settings as Payments
from functions.runtime import factories
from functions.runtime.clock import ManualClock
from functions.runtime.credentials import refuse_weak, secret
from functions.runtime.settings import RuntimeSettings, SettingsError, load
from knative.local import manifests as m
from knative.local.parts import GATEWAY
from tests.architecture import domains
from tests.manifests import variables
from tests.manifests.conftest import ROOT
from tests.manifests.rendered import of, render

AWS, ONPREM = "knative/overlays/aws", "knative/overlays/onprem"
SERVICES = [GATEWAY, *(f"{domain}{role}" for domain in domains(ROOT) for role in ("", "-events"))]
# As docs/kubernetes.md has people make them.
KEYS = {domain: PrivateKey.generate(domain) for domain in (*domains(ROOT), GATEWAY)}
PUBLIC = reduce(lambda known, key: known.with_key(key.service, key.public), KEYS.values(), ServiceKeys({}))
SECRETS = {
    **{f"service-key-{name}": {"service.pem": key.pem} for name, key in KEYS.items()},
    "admin": {"email": "admin@shop.example.com", "password": "vK3qQ0m6Zx_tE8rWcY2p"},
    "stripe": {"api-key": "sk_live_vK3qQ0m6Zx_tE8rWcY2p", "webhook-secret": "whsec_vK3qQ0m6Zx_tE8rWcY2p"},
    "mail-events": {"secret": "tE8rWcY2pvK3qQ0m6Zx_"},
    "smtp": {"url": "smtps://shop:tE8rWcY2pvK3qQ0m6Zx_@mail.example.com"},
}
STORE = {f"store-{domain}": {"password": f"{domain}-8rWcY2pvK3qQ0m6Zx_"} for domain in domains(ROOT)}
NEEDED = {
    **{f"service-key-{domain}": {domain, f"{domain}-events"} for domain in domains(ROOT)},
    f"service-key-{GATEWAY}": {GATEWAY},
    "stripe": {"payments", "payments-events"},
}
overlays = pytest.mark.parametrize("overlay", [AWS, ONPREM])


def manifest(service: str, overlay: str) -> Mapping[str, Any]:
    """The service, as an overlay of production has it."""
    (found,) = (d for d in render(overlay) if d["apiVersion"] == m.SERVING and m.name_of(d) == service)
    return found


def environment(service: str, there: dict[str, dict[str, str]], overlay: str = AWS) -> dict[str, str]:
    """What the process finds when these Secrets are in the cluster."""
    (shared,) = (d["data"] for d in of(render(overlay), "ConfigMap") if m.name_of(d).startswith("settings-"))
    found: dict[str, str] = dict(shared)
    for variable in m.container_of(manifest(service, overlay))["env"]:
        source = variable.get("valueFrom", {})
        reference = source.get("secretKeyRef")
        if "configMapKeyRef" in source:
            assert source["configMapKeyRef"] == {"name": "service-keys", "key": "jwks.json"}
            found[variable["name"]] = PUBLIC.jwks()
        elif reference is None:
            found[variable["name"]] = variable["value"]
        elif reference["name"] in there:
            found[variable["name"]] = there[reference["name"]][reference["key"]]
    return found


def start(service: str, there: dict[str, dict[str, str]], overlay: str = AWS) -> RuntimeSettings:
    """As the process does it, up to where it would open a store."""
    name = service.removesuffix("-events")
    settings = load(variables.settings_of(name), environment(service, there, overlay))
    assert settings.shop_env == "production"
    refuse_weak(settings)
    factories.service_key(settings, name)
    if service != GATEWAY:
        factories.service_keys(settings, name)
    if isinstance(settings, Payments):
        open_provider(settings, ManualClock())
    if isinstance(settings, Notifications):
        open_channel(settings, [])
    return settings


@overlays
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_of_production_is_given_every_secret_that_its_start_demands(service: str, overlay: str) -> None:
    settings = start(service, SECRETS | STORE if overlay == ONPREM else SECRETS, overlay)
    given = {name: secret(settings, name) for name in settings.SECRETS}
    by_role = {"admin_password"} if service == "users-events" else set()
    if overlay == AWS or service == GATEWAY:  # DynamoDB has roles
        by_role |= {"store_password"} & given.keys()
    if overlay == ONPREM or service == "notifications-events":  # SMTP reports nothing
        by_role |= {"mail_events_secret"} & given.keys()
    absent = {name for name, value in given.items() if not value}
    assert absent == by_role, "only the rpc role asks for it"


@pytest.mark.parametrize(("name", "service"), [(n, s) for n, services in NEEDED.items() for s in sorted(services)])
def test_it_does_not_start_without_one_that_it_needs(name: str, service: str) -> None:
    there = {other: entries for other, entries in SECRETS.items() if other != name}
    with pytest.raises(SettingsError, match=r"^(SERVICE_KEY_FILE: in production|STRIPE_API_KEY: is needed)"):
        start(service, there)


@pytest.mark.parametrize(("name", "service"), [("admin", "users"), ("mail-events", "notifications")])
def test_what_may_be_absent_is_absent_without_harm_and_refused_where_it_is_bad(name: str, service: str) -> None:
    start(service, {other: entries for other, entries in SECRETS.items() if other != name})
    bad = {**SECRETS, name: dict.fromkeys(SECRETS[name], "changeme")}
    with pytest.raises(SettingsError, match="is an example"):
        start(service, bad)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_given_its_own_private_key_and_no_others(service: str) -> None:
    found = environment(service, SECRETS).values()
    own = {name for name, key in KEYS.items() if key.pem in found}
    assert own <= {service.removesuffix("-events")}


@pytest.mark.parametrize("service", SERVICES)
def test_no_start_waits_for_a_volume(service: str) -> None:
    assert "volumes" not in manifest(service, AWS)["spec"]["template"]["spec"]
