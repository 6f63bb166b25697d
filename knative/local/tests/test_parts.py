"""From the manifests of knative/base to local processes, addresses, and the broker's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from knative.local import manifests as m
from knative.local import parts, ports

BASE = m.load(Path(__file__).parents[2] / "base")
PORTS = ports.fixed(parts.domains(BASE))
DATA = Path("/d")


def part(name: str, **shell: str) -> parts.Part:
    platform = parts.derive(BASE, PORTS, DATA, shell)
    return next(p for p in platform.parts if p.name == name)


def test_a_domains_two_services_become_one_process_with_both_roles() -> None:
    orders = part("orders")
    assert orders.command[-1] == "functions.orders.main"
    assert (orders.env["ROLE"], orders.http, orders.grpc) == ("all", 8082, 9082)
    assert (orders.env["HTTP_PORT"], orders.env["GRPC_PORT"]) == ("8082", "9082")


def test_there_is_one_part_for_each_domain_the_gateway_and_the_broker() -> None:
    names = [p.name for p in parts.derive(BASE, PORTS, DATA, {}).parts]
    assert sorted(names) == sorted({"broker", "gateway", *ports.DOMAINS})


def test_cluster_addresses_become_local_ones() -> None:
    env = part("gateway").env
    assert env["ORDERS_ADDRESS"] == "127.0.0.1:9082"
    assert env["DEAD_LETTERS_URL"] == "http://127.0.0.1:8090/dead-letters"
    assert part("orders").env["BROKER_URL"] == "http://127.0.0.1:8090/shop/default"
    assert not [v for p in parts.derive(BASE, PORTS, DATA, {}).parts for v in p.env.values() if ".svc" in v]


def test_other_ports_move_every_address() -> None:
    moved = parts.derive(BASE, ports.fixed(parts.domains(BASE), 100), DATA, {})
    gateway = next(p for p in moved.parts if p.name == "gateway")
    assert (gateway.http, gateway.env["USERS_ADDRESS"]) == (8180, "127.0.0.1:9181")
    assert "http://127.0.0.1:8182" in moved.broker_config


def test_the_data_lies_where_it_was_asked_for() -> None:
    env = part("orders").env
    assert (env["STORE_URL"], env["SERVICE_KEY_FILE"]) == (
        "sqlite:////d/store",
        "/d/secrets/service-key-orders/service.pem",
    )


def test_the_stores_may_be_on_a_database_but_on_no_other_files() -> None:
    for url in ("dynamodb://shop-?endpoint=http://127.0.0.1:8000", "postgresql://db/shop"):
        assert part("orders", STORE_URL=url).env["STORE_URL"] == url
    assert part("orders", STORE_URL="sqlite:////elsewhere").env["STORE_URL"] == "sqlite:////d/store"


def test_the_shell_wins_over_the_manifests_but_not_over_what_must_fit_together() -> None:
    given = part("orders", LOG_LEVEL="DEBUG", OTEL_TRACES_EXPORTER="otlp", BROKER_URL="http://no", HTTP_PORT="1").env
    assert (given["LOG_LEVEL"], given["OTEL_TRACES_EXPORTER"]) == ("DEBUG", "otlp")
    assert (given["BROKER_URL"], given["HTTP_PORT"]) == ("http://127.0.0.1:8090/shop/default", "8082")


def test_the_broker_gets_the_triggers_with_local_addresses_and_all_else_untouched() -> None:
    config = list(yaml.safe_load_all(parts.derive(BASE, PORTS, DATA, {}).broker_config))
    (trigger,) = [d for d in config if d["metadata"]["name"] == "products-events"]
    (source,) = [d for d in BASE.of(m.EVENTING, "Trigger") if m.name_of(d) == "products-events"]
    assert trigger["spec"]["subscriber"] == {"uri": "http://127.0.0.1:8083"}
    assert trigger["spec"]["delivery"]["deadLetterSink"] == {"uri": "http://127.0.0.1:8090/dead-letters"}
    assert trigger["spec"]["filters"] == source["spec"]["filters"]
    assert trigger["spec"]["delivery"]["retry"] == source["spec"]["delivery"]["retry"]
    assert trigger["metadata"]["namespace"] == "shop"
    assert [d["kind"] for d in config].count("Broker") == 1


def test_the_broker_accepts_its_configuration() -> None:
    from knative.local.broker.config import load

    config = load(parts.derive(BASE, PORTS, DATA, {}).broker_config)
    assert len(config.triggers["shop/default"]) == len(BASE.of(m.EVENTING, "Trigger"))


def test_a_ping_source_becomes_a_timer() -> None:
    (tick,) = parts.derive(BASE, PORTS, DATA, {}).ticks
    assert tick.source == "/apis/v1/namespaces/shop/pingsources/sweep"
    assert (tick.schedule, tick.sink) == ("*/5 * * * *", "http://127.0.0.1:8090/shop/default")


def test_users_start_with_the_broker_before_the_rest() -> None:
    starts = {p.name: p.starts for p in parts.derive(BASE, PORTS, DATA, {}).parts}
    assert starts["broker"] == starts["users"] < starts["orders"] == starts["gateway"]


def test_the_gateway_ends_first_and_the_broker_last() -> None:
    ends = {p.name: p.ends for p in parts.derive(BASE, PORTS, DATA, {}).parts}
    assert ends["gateway"] < ends["users"] == ends["orders"] < ends["broker"]


def test_an_image_that_nobody_knows_how_to_run_is_named() -> None:
    service = {**BASE.of(m.SERVING, "Service")[0]}
    service["spec"] = {"template": {"spec": {"containers": [{"image": "postgres"}]}}}
    with pytest.raises(m.ManifestError, match="unknown how to run postgres"):
        parts.domains(m.Manifests("shop", (service,), {}))


def with_console(**shell: str) -> dict[str, parts.Part]:
    platform = parts.with_console(parts.derive(BASE, PORTS, DATA, shell), PORTS, DATA, shell)
    return {p.name: p for p in platform.parts}


def test_with_a_console_every_other_part_sends_its_spans_there_and_the_gateway_shows_it() -> None:
    running = with_console()
    endpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    assert {p.env.get(endpoint) for name, p in running.items() if name != "console"} == {
        "http://127.0.0.1:8091/v1/traces"
    }
    assert endpoint not in running["console"].env
    assert [name for name, p in running.items() if "CONSOLE_URL" in p.env] == ["gateway"]


def test_whoever_asks_for_traces_elsewhere_gets_them_there() -> None:
    running = with_console(OTEL_EXPORTER_OTLP_ENDPOINT="http://jaeger:4317")
    assert "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" not in running["orders"].env
    assert running["gateway"].env["CONSOLE_URL"] == "http://127.0.0.1:8091"
