"""Each overlay is complete: what it renders refers to nothing that is not there, and keeps the base's promises."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from events.catalog import SweepDue
from functions.runtime.rpc.server import MAX_MESSAGE_BYTES
from functions.runtime.settings import load
from gateway.settings import Settings
from knative.local import manifests as m
from knative.local.parts import GATEWAY
from tests.architecture import domains
from tests.manifests import variables
from tests.manifests.conftest import ROOT
from tests.manifests.rendered import folders, of, pods, render

DEV, DYNAMODB = "knative/overlays/dev", "knative/overlays/dev-dynamodb"
AWS, ONPREM = "knative/overlays/aws", "knative/overlays/onprem"
KEYS = {*(f"service-key-{name}" for name in (*domains(ROOT), GATEWAY)), "admin"}
STORE = {f"store-{name}" for name in ("admin", *domains(ROOT))}
MADE_OUTSIDE = {
    AWS: {*KEYS, "stripe", "mail-events"},
    ONPREM: {*KEYS, *STORE, "stripe", "smtp", "postgres-ca"},
    DEV: set(),
    DYNAMODB: set(),
}
"""The Secrets that people, a vault or an operator make; those that a service may do without are not among them."""
overlays = pytest.mark.parametrize("overlay", [DEV, DYNAMODB, AWS, ONPREM])
productions = pytest.mark.parametrize("overlay", [AWS, ONPREM])


def _secrets(spec: dict[str, Any]) -> Iterator[str]:
    for volume in spec.get("volumes", ()):
        if "secret" in volume:
            yield volume["secret"]["secretName"]
        for source in volume.get("projected", {}).get("sources", ()):
            if "secret" in source:
                yield source["secret"]["name"]
    for container in spec["containers"]:
        for variable in container.get("env", ()):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference and not reference.get("optional"):
                yield reference["name"]


def settings(overlay: str) -> dict[str, str]:
    """What all services are told."""
    (found,) = (d["data"] for d in of(render(overlay), "ConfigMap") if m.name_of(d).startswith("settings-"))
    return dict(found)


@overlays
def test_a_pod_that_is_less_restricted_would_be_refused(overlay: str) -> None:
    (namespace,) = (d for d in of(render(overlay), "Namespace") if m.name_of(d) == "shop")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@overlays
def test_settings_that_change_roll_out_since_their_maps_are_named_by_a_hash(overlay: str) -> None:
    # The public keys are written by the Job that makes them: pods are restarted after a rotation.
    maps = [d for d in of(render(overlay), "ConfigMap") if d["metadata"]["namespace"] == "shop"]
    named = {m.name_of(d) for d in maps} - {"service-keys"}
    assert named
    assert all(re.fullmatch(r"settings-[a-z0-9]{10}", name) for name in named)
    used = {
        source["configMapRef"]["name"]
        for _, spec in pods(render(overlay))
        for container in spec["containers"]
        for source in container.get("envFrom", ())
    }
    assert used == named


@overlays
def test_a_service_is_told_nothing_that_its_settings_do_not_know(overlay: str) -> None:
    shared = settings(overlay)
    parts = [*domains(ROOT), GATEWAY]
    read_by_none = set.intersection(*(set(variables.unknown(part, shared)) for part in parts))
    assert not read_by_none
    for service in (d for d in render(overlay) if d["apiVersion"] == m.SERVING):
        part = m.name_of(service).removesuffix("-events")
        own = {v["name"]: v.get("value", "") for v in m.container_of(service)["env"]}
        assert not list(variables.unknown(part, own)), m.name_of(service)
        load(variables.settings_of(part), {**shared, **own})


@overlays
def test_everything_that_an_overlay_refers_to_is_in_it(overlay: str) -> None:
    documents = render(overlay)
    accounts = {m.name_of(d) for d in of(documents, "ServiceAccount")}
    secrets = {m.name_of(d) for d in of(documents, "Secret")} | MADE_OUTSIDE[overlay]
    maps = {m.name_of(d) for d in of(documents, "ConfigMap")}
    for name, spec in pods(documents):
        assert spec["serviceAccountName"] in accounts, name
        assert set(_secrets(spec)) <= secrets, name
        for container in spec["containers"]:
            assert {s["configMapRef"]["name"] for s in container.get("envFrom", ())} <= maps, name


@overlays
def test_only_what_makes_secrets_gets_a_token_for_the_api_server(overlay: str) -> None:
    with_token = [name for name, spec in pods(render(overlay)) if spec["automountServiceAccountToken"]]
    assert with_token == (["Job/secrets"] if overlay in (DEV, DYNAMODB) else [])


@overlays
def test_no_secret_of_an_overlay_holds_anything(overlay: str) -> None:
    assert not [s for s in of(render(overlay), "Secret") if s.keys() & {"data", "stringData"}]


def test_the_job_that_makes_secrets_may_touch_nothing_else() -> None:
    callers = {*domains(ROOT), GATEWAY}
    rules = [rule for role in of(render(DEV), "Role") for rule in role["rules"]]
    allowed = {(kind, name) for rule in rules for kind in rule["resources"] for name in rule["resourceNames"]}
    assert allowed == {
        *(("secrets", name) for name in KEYS | STORE | {"volumes"}),
        ("configmaps", "service-keys"),
    }
    assert all(rule["apiGroups"] == [""] and rule["verbs"] == ["get", "patch"] for rule in rules)
    (job,) = (d for d in of(render(DEV), "Job") if m.name_of(d) == "secrets")
    container = job["spec"]["template"]["spec"]["containers"][0]
    command, *services = container["args"]
    assert (command, set(services)) == ("secrets", callers)
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert {f"store-{name}" for name in environment["STORE_SECRETS"].split()} == STORE
    assert environment["VOLUMES_SECRET"] == "volumes"


@pytest.mark.parametrize(("overlay", "store"), [(DEV, "postgres"), (DYNAMODB, "amazon/dynamodb-local")])
def test_development_runs_the_images_that_make_builds(overlay: str, store: str) -> None:
    images = {c["image"] for _, spec in pods(render(overlay)) for c in spec["containers"]}
    (others,) = {i for i in images if not re.fullmatch(r"dev\.local/shop/[a-z-]+:dev", i)}
    assert re.fullmatch(rf"{store}:[0-9.]+", others)


@productions
def test_production_pins_every_image_by_its_digest(overlay: str) -> None:
    for name, spec in pods(render(overlay)):
        for container in spec["containers"]:
            assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"]), name


@productions
def test_production_keeps_a_gateway_awake_and_lets_everything_else_sleep(overlay: str) -> None:
    scales = {
        m.name_of(s): s["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"]
        for s in render(overlay)
        if s["apiVersion"] == m.SERVING
    }
    assert {name for name, scale in scales.items() if scale != "0"} == {"gateway"}


@pytest.mark.parametrize("overlay", [name for name in folders() if name.startswith("knative/overlays/")])
def test_scale_out_has_an_end_everywhere(overlay: str) -> None:
    for service in render(overlay):
        if service["apiVersion"] == m.SERVING:
            annotations = service["spec"]["template"]["metadata"]["annotations"]
            assert 1 <= int(annotations["autoscaling.knative.dev/max-scale"]) <= 20, m.name_of(service)


def test_aws_sends_by_ses_and_keeps_its_state_in_dynamodb_as_roles_of_its_own() -> None:
    documents, shared = render(AWS), settings(AWS)
    assert shared["STORE_URL"].startswith("dynamodb://")
    assert "endpoint" not in shared["STORE_URL"]
    assert not [name for name in shared if name.startswith("AWS_") and "REGION" not in name], "no keys: roles"
    assert (shared["MAIL_CHANNEL"], shared["MAIL_FROM"]) == ("ses", "shop@shop.example.com")
    roles = {
        m.name_of(a): a["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
        for a in of(documents, "ServiceAccount")
        if "annotations" in a["metadata"]
    }
    assert roles.keys() == set(domains(ROOT))
    assert len(set(roles.values())) == len(roles), "a domain reads its own tables only"


@productions
def test_production_has_a_durable_broker(overlay: str) -> None:
    (broker,) = of(render(overlay), "Broker")
    assert settings(overlay)["BROKER_URL"].startswith("http://kafka-broker-ingress.")
    assert broker["metadata"]["annotations"]["eventing.knative.dev/broker.class"] == "Kafka"
    assert broker["spec"]["config"]["name"] == "kafka-broker-config"


@productions
def test_production_has_a_disruption_budget_for_each_service(overlay: str) -> None:
    documents = render(overlay)
    services = {m.name_of(d) for d in documents if d["apiVersion"] == m.SERVING} | {"dead-letters"}
    services |= {m.name_of(d) for d in of(documents, "Pooler")}
    assert {m.name_of(d) for d in of(documents, "PodDisruptionBudget")} == services


def test_each_domain_connects_to_postgresql_as_a_role_of_its_own() -> None:
    documents = render(ONPREM)
    (cluster,) = of(documents, "Cluster")
    roles = {role["name"]: role["passwordSecret"]["name"] for role in cluster["spec"]["managed"]["roles"]}
    assert roles == {f"shop_{name}": f"store-{name}" for name in domains(ROOT)}
    assert not any(role.keys() & {"superuser", "createrole", "inRoles"} for role in cluster["spec"]["managed"]["roles"])
    for service in (d for d in documents if d["apiVersion"] == m.SERVING):
        given = {v["name"]: v.get("valueFrom", {}) for v in m.container_of(service)["env"]}
        domain = m.name_of(service).removesuffix("-events")
        if domain != GATEWAY:
            assert given["STORE_PASSWORD"]["secretKeyRef"]["name"] == f"store-{domain}"
        assert ("STORE_PASSWORD" in given) is (domain != GATEWAY)


@pytest.mark.parametrize("overlay", [DEV, ONPREM])
def test_the_stores_of_all_domains_are_migrated(overlay: str) -> None:
    (job,) = (d for d in of(render(overlay), "Job") if m.name_of(d) == "migrate")
    command, *stores = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert (command, set(stores)) == ("migrate", {*domains(ROOT), "payments-ledger"})


def test_the_pooler_and_the_database_show_certificates_for_the_names_that_are_called() -> None:
    documents = render(ONPREM)
    (cluster,) = of(documents, "Cluster")
    (job,) = of(documents, "Job")
    environment = {v["name"]: v.get("value", "") for v in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    called = {settings(ONPREM)["STORE_URL"], environment["STORE_ADMIN_URL"]}
    assert all("sslmode=verify-full" in url for url in called)
    assert {urlsplit(url).hostname for url in called} == set(cluster["spec"]["certificates"]["serverAltDNSNames"])


def test_the_trial_of_onprem_is_onprem_without_operators_and_has_what_it_calls_at_the_same_addresses() -> None:
    documents, trial = render(ONPREM), render(f"{ONPREM}-trial")
    operated = ("cnpg.io", "strimzi.io")
    wanted = {(d["kind"], m.name_of(d)) for d in documents if not d["apiVersion"].partition("/")[0].endswith(operated)}
    wanted = {(kind, name) for kind, name in wanted if not name.startswith(("postgres", "settings-"))}
    assert wanted <= {(d["kind"], m.name_of(d)) for d in trial}
    assert not [d for d in trial if d["apiVersion"].partition("/")[0].endswith(operated)]
    same = ("SHOP_ENV", "STORE_URL", "BROKER_URL", "MAIL_CHANNEL", "TOKEN_ISSUER")
    assert [settings(f"{ONPREM}-trial")[name] for name in same] == [settings(ONPREM)[name] for name in same]
    services = {f"{m.name_of(d)}.{d['metadata']['namespace']}.svc.cluster.local" for d in of(trial, "Service")}
    (job,) = (d for d in of(trial, "Job") if m.name_of(d) == "migrate")
    environment = {v["name"]: v.get("value", "") for v in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    (kafka,) = (d for d in of(trial, "ConfigMap") if m.name_of(d) == "kafka-broker-config")
    urls = (settings(ONPREM)["STORE_URL"], environment["STORE_ADMIN_URL"], f"//{kafka['data']['bootstrap.servers']}")
    assert {urlsplit(url).hostname for url in urls} <= services


def network(overlay: str) -> dict[str, dict[str, Any]]:
    """The specs of the overlay's NetworkPolicies, by namespace and name."""
    policies = of(render(overlay), "NetworkPolicy")
    return {f"{d['metadata']['namespace']}/{m.name_of(d)}": d["spec"] for d in policies}


def named(peer: dict[str, Any]) -> tuple[str, str]:
    """The namespace and the names or components of pods that a peer of a NetworkPolicy stands for."""
    spaces = peer.get("namespaceSelector", {}).get("matchLabels", {}).values()
    pods = peer.get("podSelector", {})
    chosen = [*pods.get("matchLabels", {}).values()]
    chosen += [value for each in pods.get("matchExpressions", ()) for value in each["values"]]
    return "".join(spaces), ",".join(chosen)


def callers(spec: dict[str, Any], port: int) -> set[tuple[str, str]]:
    """Who may come in at a port."""
    rules = [rule for rule in spec["ingress"] if port in {each["port"] for each in rule["ports"]}]
    assert all("from" in rule for rule in rules), "everybody"
    return {named(peer) for rule in rules for peer in rule["from"]}


@overlays
def test_what_no_policy_allows_is_denied(overlay: str) -> None:
    policies = network(overlay)
    assert policies["shop/default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, spec in policies.items():
        assert all(rule.get("from") for rule in spec.get("ingress", ())) or name.startswith("istio-system/"), name


@overlays
def test_dead_letters_are_left_by_brokers_and_read_by_the_gateway_alone(overlay: str) -> None:
    policies = network(overlay)
    assert callers(policies["shop/dead-letters"], 8080) == {("knative-eventing", ""), ("", "gateway")}
    out = {
        spec["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name")
        for spec in policies.values()
        for rule in spec.get("egress", ())
        for peer in rule.get("to", ())
        if named(peer) == ("", "dead-letters")
    }
    assert out == {"gateway"}


@overlays
def test_the_store_is_for_the_domains_and_its_migration_alone(overlay: str) -> None:
    policy = network(overlay)["shop/store"]
    assert policy["podSelector"] == {"matchLabels": {"app.kubernetes.io/component": "store"}}
    assert callers(policy, 5432) == callers(policy, 8000) == {("", "rpc,events,migration")}
    stores = {m.name_of(d) for d in render(overlay) if "store" in json.dumps(labels_of_pods(d))}
    assert stores == {DEV: {"postgres"}, DYNAMODB: {"dynamodb"}, ONPREM: {"postgres", "postgres-pooler"}}.get(
        overlay, set()
    )


def labels_of_pods(document: m.Document) -> dict[str, str]:
    """The labels that the pods of a document get."""
    spec = document.get("spec", {})
    metadata = spec.get("inheritedMetadata") or (spec.get("template") or {}).get("metadata") or {}
    return {k: v for k, v in metadata.get("labels", {}).items() if k == "app.kubernetes.io/component"}


def test_domains_have_the_components_that_policies_choose_them_by() -> None:
    components = {
        spec["metadata"]["labels"]["app.kubernetes.io/component"]
        for d in render(DEV)
        if d["apiVersion"] == m.SERVING and m.name_of(d).removesuffix("-events") in domains(ROOT)
        for spec in [d["spec"]["template"]]
    }
    assert components == {"rpc", "events"}


@overlays
@pytest.mark.parametrize("broker", ["shop-broker-ingress", "shop-kafka-broker-receiver"])
def test_the_way_into_the_broker_is_for_publishers_ticks_and_replays_alone(overlay: str, broker: str) -> None:
    spec = network(overlay)[f"knative-eventing/{broker}"]
    wanted = {("shop", "rpc,events"), ("shop", "dead-letters"), ("knative-eventing", "")}
    assert callers(spec, 8080) == callers(spec, 8443) == wanted


@overlays
def test_the_cluster_local_gateway_is_for_the_platform_and_for_knative_alone(overlay: str) -> None:
    outside, inside = network(overlay)["istio-system/shop-cluster-local-gateway"]["ingress"]
    assert {each["port"] for each in outside["ports"]} == {8080, 8443, 15021, 15090}
    knative, services, catalogue = inside["from"]
    assert knative["namespaceSelector"]["matchExpressions"][0]["values"] == [
        "knative-serving",
        "knative-eventing",
    ]
    assert services["podSelector"]["matchExpressions"][0]["values"] == ["gateway", "rpc", "events"]
    assert catalogue["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "catalogue"}


def test_in_the_mesh_a_store_is_for_the_domains_and_without_an_identity_at_postgresqls_port_alone() -> None:
    documents = render("knative/overlays/dev-mesh")
    (spec,) = (d["spec"] for d in of(documents, "AuthorizationPolicy") if m.name_of(d) == "store")
    by_identity, without = spec["rules"]
    named = {f"cluster.local/ns/shop/sa/{name}" for name in domains(ROOT)}
    assert set(by_identity["from"][0]["source"]["principals"]) == named
    assert without["from"] == [{"source": {"notPrincipals": ["*"]}}]
    assert without["to"] == [{"operation": {"ports": ["5432"]}}]
    (peers,) = (d["spec"] for d in of(documents, "PeerAuthentication") if m.name_of(d) == "store")
    assert (peers["mtls"], peers["portLevelMtls"]) == ({"mode": "STRICT"}, {"5432": {"mode": "PERMISSIVE"}})
    (database,) = (d for d in of(documents, "StatefulSet") if m.name_of(d) == "postgres")
    chosen = database["spec"]["template"]["metadata"]["labels"].items()
    assert spec["selector"]["matchLabels"].items() <= chosen
    assert peers["selector"] == spec["selector"]


def test_in_the_mesh_only_who_publishes_gets_into_the_broker() -> None:
    policies = of(render("knative/overlays/dev-mesh"), "AuthorizationPolicy")
    (spec,) = (d["spec"] for d in policies if m.name_of(d) == "shop-broker-by-the-platform-only")
    (rule,) = spec["rules"]
    let_in = set(rule["from"][0]["source"]["notPrincipals"])
    assert {f"cluster.local/ns/shop/sa/{name}" for name in (*domains(ROOT), "dead-letters")} < let_in
    assert not [name for name in let_in if "/shop/sa/gateway" in name or "istio" in name]
    assert (spec["action"], rule["to"][0]["operation"]["paths"]) == ("DENY", ["/shop/*"])


def test_knative_lets_each_service_publish_events_of_its_own_source_alone() -> None:
    documents = render("knative/overlays/dev-oidc")
    policies = {m.name_of(d): d["spec"] for d in of(documents, "EventPolicy")}
    for domain in domains(ROOT):
        policy = policies.pop(f"publishes-{domain}")
        assert policy["from"] == [{"sub": f"system:serviceaccount:shop:{domain}"}]
        assert policy["filters"] == [{"exact": {"source": f"/{domain}"}}]
    assert policies.pop("ticks")["filters"] == [{"exact": {"type": SweepDue.TYPE}}]
    assert policies.pop("replays")["from"] == [{"sub": "system:serviceaccount:shop:dead-letters"}]
    assert policies == {}


def test_whoever_publishes_gets_a_token_for_the_broker_and_nobody_else() -> None:
    given = set()
    for name, spec in pods(render("knative/overlays/dev-oidc")):
        for volume in spec.get("volumes", ()):
            if volume["name"] == "broker-token":
                (source,) = volume["projected"]["sources"]
                assert source["serviceAccountToken"]["audience"] == "eventing.knative.dev/broker/shop/default"
                environment = {each["name"]: each.get("value") for each in spec["containers"][0]["env"]}
                assert environment["BROKER_TOKEN_FILE"] == "/var/run/secrets/broker/token"
                given.add(name.partition("/")[2])
    both_roles = {f"{domain}{role}" for domain in domains(ROOT) for role in ("", "-events")}
    assert given == both_roles | {"dead-letters"}


def test_production_talks_to_the_world_in_tls_only() -> None:
    (gateway,) = of(render(AWS), "Gateway")
    plain, secure = gateway["spec"]["servers"]
    assert plain["tls"] == {"httpsRedirect": True}
    assert (secure["tls"]["mode"], secure["tls"]["minProtocolVersion"]) == ("SIMPLE", "TLSV1_2")


@overlays
def test_the_world_reaches_public_paths_only(overlay: str) -> None:
    routes = {m.name_of(d): d["spec"] for d in of(render(overlay), "VirtualService")}
    paths = [
        next(iter(match["uri"].values()))
        for spec in routes.values()
        for route in spec["http"]
        for match in route["match"]
    ]
    assert all(p.startswith(("/v1/", "/docs", "/openapi.json", "/.well-known/", "/shop.")) for p in paths)
    assert not [p for p in paths if "health" in p or "metrics" in p]


@overlays
def test_routes_lead_to_services_that_exist_through_what_starts_them(overlay: str) -> None:
    documents = render(overlay)
    services = {f"{m.name_of(d)}.shop.svc.cluster.local" for d in documents if d["apiVersion"] == m.SERVING}
    for spec in (d["spec"] for d in of(documents, "VirtualService")):
        for route in spec["http"]:
            assert route["rewrite"]["authority"] in services
            (leg,) = route["route"]
            assert leg["destination"]["host"] == "knative-local-gateway.istio-system.svc.cluster.local"
            assert route["timeout"], route["name"]
    (grpc,) = (d for d in of(documents, "VirtualService") if d["metadata"]["name"] == "grpc")
    long = [route["match"] for route in grpc["spec"]["http"] if route["timeout"] != "30s"]
    assert long == [[{"uri": {"exact": "/shop.orders.v1.OrdersService/WatchOrder"}}]]


@overlays
def test_a_filter_of_the_ingress_stands_by_envoys_own_and_not_by_one_that_an_overlay_may_leave_out(
    overlay: str,
) -> None:
    envoy = of(render(overlay), "EnvoyFilter")
    places = [
        patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"]
        for document in envoy
        for patch in document["spec"]["configPatches"]
        if patch["applyTo"] == "HTTP_FILTER"
    ]
    assert places
    assert set(places) == {"envoy.filters.http.router"}


def test_every_answer_of_the_tls_ingress_says_that_there_is_only_https() -> None:
    documents = render("istio/production")
    (api,) = [d for d in of(documents, "VirtualService") if d["metadata"]["name"] == "api"]
    wanted = {"strict-transport-security": "max-age=31536000; includeSubDomains"}
    for route in api["spec"]["http"]:
        assert route["headers"]["response"]["set"] == wanted, route["name"]
        assert "x-client-address" in route["headers"]["request"]["set"], route["name"]
    (answers,) = [d for d in of(documents, "EnvoyFilter") if d["metadata"]["name"] == "shop-answers"]
    mappers = answers["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]["local_reply_config"]["mappers"]
    assert mappers
    for mapper in mappers:
        added = [each["header"]["key"] for each in mapper["headers_to_add"]]
        assert "strict-transport-security" in added


def test_a_request_is_there_in_full_before_long_or_is_cut_off_at_the_ingress() -> None:
    filters = {d["metadata"]["name"]: d for d in of(render("istio/production"), "EnvoyFilter")}
    patch, inside, _ = filters["shop-slow"]["spec"]["configPatches"]
    connections = patch["patch"]["value"]["typed_config"]
    settings = Settings()
    whole = settings.header_seconds + settings.body_seconds
    assert float(connections["request_timeout"].removesuffix("s")) == whole
    assert float(connections["request_headers_timeout"].removesuffix("s")) == settings.header_seconds
    assert connections["http2_protocol_options"]["max_concurrent_streams"] <= settings.max_concurrency_each
    # All calls of the gateway to a service share a connection at the cluster-local gateway.
    assert inside["match"]["listener"]["portNumber"] == 8081
    streams = inside["patch"]["value"]["typed_config"]["http2_protocol_options"]["max_concurrent_streams"]
    assert streams > settings.max_concurrency + settings.max_streams
    (limits,) = filters["shop-limits"]["spec"]["configPatches"]
    entries = limits["patch"]["value"]["typed_config"]["descriptors"][0]["entries"]
    assert [entry["key"] for entry in entries] == ["header_match", "masked_remote_address"]


def test_the_ingress_holds_a_request_of_the_platforms_hosts_until_it_is_there_in_full() -> None:
    for overlay, hosts in (
        ("istio/dev", ["shop.local", "grpc.shop.local"]),
        ("istio/production", ["shop.example.com", "grpc.shop.example.com"]),
    ):
        filters = {d["metadata"]["name"]: d for d in of(render(overlay), "EnvoyFilter")}
        held = filters["shop-slow"]["spec"]["configPatches"][2]["patch"]["value"]["typed_config"]
        (matcher,) = held["xds_matcher"]["matcher_list"]["matchers"]
        regex = matcher["predicate"]["not_matcher"]["single_predicate"]["value_match"]["safe_regex"]["regex"]
        for host in hosts:
            assert re.fullmatch(regex, host)
            assert re.fullmatch(regex, f"{host}:443")
        assert not re.fullmatch(regex, "elsewhere.example.com")
        # The gateway's bound and gRPC's, whose messages have a head of five bytes.
        bound = held["extension_config"]["typed_config"]["max_request_bytes"]
        assert bound >= max(Settings().max_body_bytes, MAX_MESSAGE_BYTES + 5)


@overlays
def test_the_governing_service_of_a_stateful_set_is_headless(overlay: str) -> None:
    documents = render(overlay)
    services = {m.name_of(service): service["spec"] for service in of(documents, "Service")}
    sets = of(documents, "StatefulSet")
    assert sets
    for stateful in sets:
        assert services[stateful["spec"]["serviceName"]]["clusterIP"] == "None"


def test_a_policy_that_denies_by_what_only_http_has_names_its_ports() -> None:
    policies = of(render("knative/overlays/dev-mesh"), "AuthorizationPolicy")
    denying = [policy["spec"] for policy in policies if policy["spec"].get("action") == "DENY"]
    assert denying
    http_only = {"hosts", "notHosts", "methods", "notMethods", "paths", "notPaths"}
    for rule in (rule for spec in denying for rule in spec["rules"]):
        operations = [entry["operation"] for entry in rule.get("to", ())]
        by_header = any(condition["key"].startswith("request.") for condition in rule.get("when", ()))
        if by_header or any(http_only & operation.keys() for operation in operations):
            assert operations, "on other ports Istio would ignore the rest and refuse everything"
            assert all(operation.get("ports") for operation in operations)
