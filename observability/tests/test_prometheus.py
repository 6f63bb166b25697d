"""Rules and alerts, checked and run by promtool (Debian's package prometheus has it)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "prometheus"
PROMTOOL = shutil.which("promtool")
pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")

HOURS = "x400"  # minutes: longer than the longest window; rules are evaluated every five, to be quick

HTTP = "http_server_request_duration_seconds"
RPC = "rpc_server_duration_seconds"
METHOD = 'service="orders", method="shop.orders.v1.OrdersService/PlaceOrder"'
OUTBOX = 'shop_outbox_oldest_seconds{service="orders"}'
DEAD = 'shop_dead_letters_received_total{trigger="shop/t"}'
DEAD_OF_NONE = 'shop_dead_letters_received_total{trigger="unknown"}'
NOT_TAKEN = 'shop_broker_dead_letter_failures_total{trigger="shop/t"}'
CIRCUIT = 'shop_circuit_open{circuit="payment provider"}'
PODS = 'kn_revision_pods_count{kn_revision_name="orders-00001"}'
FORGED = 'shop_event_signatures_refused_total{service="orders", reason="EVENT_UNSIGNED"}'
TIMED_OUT = 'shop_orders_cancelled_total{reason="TIMED_OUT"}'
MISCONFIGURED = 'shop_payment_provider_errors_total{kind="configuration"}'
REFUSED_ORDERS = 'shop_orders_refused_total{reason="TOO_MANY_DECLINES"}'
LOST = 'shop_trace_spans_total{service="orders", outcome="lost"}'


def gateway(errors: int, fast: int = 0) -> dict[str, str]:
    """The gateway's series: of 1000 requests a minute so many fail, and so many are fast."""
    return {
        f'{HTTP}_count{{service="gateway", status="200"}}': f"0+{1000 - errors}{HOURS}",
        f'{HTTP}_count{{service="gateway", status="503"}}': f"0+{errors}{HOURS}",
        f'{HTTP}_bucket{{service="gateway", status="200", le="0.5"}}': f"0+{fast}{HOURS}",
    }


def rpc(errors: int, fast: int = 0) -> dict[str, str]:
    """The same of a method."""
    return {
        f'{RPC}_count{{{METHOD}, code="OK"}}': f"0+{1000 - errors}{HOURS}",
        f'{RPC}_count{{{METHOD}, code="INTERNAL"}}': f"0+{errors}{HOURS}",
        f'{RPC}_bucket{{{METHOD}, code="OK", le="0.5"}}': f"0+{fast}{HOURS}",
    }


def saga(fast: int) -> dict[str, str]:
    """Of 1000 orders a minute so many settle in time."""
    return {
        'shop_saga_seconds_count{outcome="confirmed"}': f"0+1000{HOURS}",
        'shop_saga_seconds_bucket{outcome="confirmed", le="30.0"}': f"0+{fast}{HOURS}",
    }


def handled(retried: int) -> dict[str, str]:
    """Of 1000 events a minute so many are put off, half of them by a crash."""
    series = 'shop_event_handling_seconds_count{service="orders", type="shop.stock.reserved.v1", outcome="%s"}'
    counts = {"handled": 1000 - retried, "retry": retried // 2, "crashed": retried // 2}
    return {series % outcome: f"0+{count}{HOURS}" for outcome, count in counts.items()}


def delivered(failed: int) -> dict[str, str]:
    """The same, as the local broker tells it of its requests."""
    series = 'shop_broker_attempts_total{trigger="shop/t", result="%s"}'
    counts = {"success": 1000 - failed, "failure": failed}
    return {series % result: f"0+{count}{HOURS}" for result, count in counts.items()}


def dispatched(events: int) -> dict[str, str]:
    """So many events that Knative's filter tried five times, in vain: a series each, by their subject."""
    labels = '{messaging_destination_name="trigger:t.shop", http_response_status_code="503", cloudevents_subject="%d"}'
    series = f"kn_eventing_dispatch_duration_seconds_count{labels}"
    return {series % number: "_x384 1 2 3 4 5+0x20" for number in range(events)}


FIRES_AND_NOT: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "GatewayErrorsFast": (gateway(20), gateway(10)),
    "GatewayErrorsSlow": (gateway(8), gateway(4)),
    "GatewaySlowFast": (gateway(0, fast=800), gateway(0, fast=900)),
    "GatewaySlowSlow": (gateway(0, fast=930), gateway(0, fast=950)),
    "RpcErrorsFast": (rpc(20), rpc(10)),
    "RpcErrorsSlow": (rpc(8), rpc(4)),
    "RpcSlowFast": (rpc(0, fast=800), rpc(0, fast=900)),
    "RpcSlowSlow": (rpc(0, fast=930), rpc(0, fast=950)),
    "SagaSlowFast": (saga(800), saga(900)),
    "SagaSlowSlow": (saga(930), saga(950)),
    "OutboxStuck": ({OUTBOX: f"0+60{HOURS}"}, {OUTBOX: f"5+0{HOURS}"}),
    "DeadLetters": ({DEAD: f"0+0x390 1+0{HOURS}"}, {DEAD: f"3+0{HOURS}"}),
    "DeadLettersWithoutTrigger": (
        {DEAD_OF_NONE: f"0+0x390 1+0{HOURS}"},
        {DEAD_OF_NONE: f"3+0{HOURS}", DEAD: f"0+1{HOURS}"},
    ),
    "EventsForged": ({FORGED: f"0+0x390 1+0{HOURS}"}, {FORGED: f"3+0{HOURS}"}),
    "OrdersStuck": ({TIMED_OUT: f"0+0x390 1+0{HOURS}"}, {TIMED_OUT: f"3+0{HOURS}"}),
    "DeadLettersRefused": ({NOT_TAKEN: f"0+1{HOURS}"}, {NOT_TAKEN: f"3+0{HOURS}"}),
    "EventsRetried": (handled(200), handled(50)),
    "EventsRefused": (delivered(200), delivered(50)),
    "PaymentProviderMisconfigured": (
        {MISCONFIGURED: f"0+0x390 1+0{HOURS}"},
        {MISCONFIGURED: f"3+0{HOURS}", MISCONFIGURED.replace("configuration", "unavailable"): f"0+1{HOURS}"},
    ),
    "OrdersRefused": (
        {REFUSED_ORDERS: f"0+20{HOURS}"},
        {REFUSED_ORDERS: f"0+1{HOURS}"},
    ),
    "CircuitOpen": ({CIRCUIT: f"0+0x370 1+0{HOURS}"}, {CIRCUIT: f"1+0x380 0+0{HOURS}"}),
    # Three minutes with a pod and one without, and a quarter of an hour of each.
    "ColdStarts": ({PODS: "1 1 1 0 " * 100}, {PODS: ("1 " * 15 + "0 " * 15) * 14}),
    "SpansLost": ({LOST: f"0+1{HOURS}"}, {LOST: f"3+0{HOURS}"}),
    "PartDown": (
        {'up{job="shop", instance="a"}': f"0+0{HOURS}"},
        {'up{job="shop", instance="a"}': f"1+0{HOURS}"},
    ),
}


def promtool(*arguments: str) -> None:
    assert PROMTOOL is not None
    ran = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def firing(folder: Path, series: dict[str, str], selected: str, rings: bool) -> None:
    """Whether, after some hours with these series, one of the selected alerts fires, is as it should be."""
    expression = f'count(ALERTS{{{selected}, alertstate="firing"}})'
    wanted: list[dict[str, Any]] = [{"labels": "{}", "value": 1}] if rings else []
    test = {
        "rule_files": [str(FOLDER / name) for name in ("recording.yaml", "alerts.yaml")],
        "evaluation_interval": "5m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [{"expr": expression, "eval_time": "395m", "exp_samples": wanted}],
            }
        ],
    }
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump(test))
    promtool("test", "rules", str(file))


@pytest.mark.parametrize("file", ["prometheus", "compose", "kubernetes"])
def test_the_configuration_and_its_rules_are_valid(tmp_path: Path, file: str) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    copy = tmp_path / f"{file}.yaml"
    # Debian's Prometheus is built without the discovery of pods; the relabelling is checked all the same.
    config = yaml.safe_load(copy.read_text())
    for job in config["scrape_configs"]:
        if job.pop("kubernetes_sd_configs", None):
            job["static_configs"] = [{"targets": ["localhost"]}]
    copy.write_text(yaml.safe_dump(config))
    promtool("check", "config", str(copy))


def test_every_alert_has_a_row_in_the_table() -> None:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    assert {rule["alert"] for group in groups for rule in group["rules"]} == set(FIRES_AND_NOT)


@pytest.mark.parametrize("alert", FIRES_AND_NOT)
@pytest.mark.parametrize("rings", [True, False], ids=["fires", "keeps quiet"])
def test_the_alert(tmp_path: Path, alert: str, rings: bool) -> None:
    series = FIRES_AND_NOT[alert][0 if rings else 1]
    firing(tmp_path, series, f'alertname="{alert}"', rings)


def test_deliveries_that_fail_are_seen_under_knatives_own_broker_too(tmp_path: Path) -> None:
    selected = 'alertname="EventsRefused", trigger="shop/t"'
    firing(tmp_path, dispatched(5), selected, True)
    firing(tmp_path, dispatched(1), selected, False)


@pytest.mark.parametrize("events", [1, 20])
def test_deliveries_that_fail_are_seen_under_kafkas_broker_too(tmp_path: Path, events: int) -> None:
    labels = 'kn_trigger_name="t", kn_trigger_namespace="shop", messaging_consumer_group_name="t"'
    series = f'kn_eventing_dispatch_latency_ms_count{{{labels}, http_response_status_code="%s"}}'
    given = {series % "503": f"0+0x387 {events}+0{HOURS}", series % "204": f"0+50{HOURS}"}
    firing(tmp_path, given, 'alertname="EventsRefused", trigger="shop/t"', events > 2)


def test_subscribers_that_no_request_reaches_are_seen_by_their_dead_letters(tmp_path: Path) -> None:
    selected = 'alertname="EventsRefused", trigger="shop/t"'
    firing(tmp_path, {DEAD: f"0+0x387 20+0{HOURS}"}, selected, True)
    firing(tmp_path, {DEAD_OF_NONE: f"0+0x387 20+0{HOURS}"}, selected, False)


@pytest.mark.parametrize(
    ("metric", "code", "kept"),
    [
        ("kn_eventing_dispatch_duration_seconds_count", "503", True),
        ("kn_eventing_dispatch_duration_seconds_count", "204", False),
        ("kn_eventing_dispatch_duration_seconds_bucket", "503", False),
        ("kn_eventing_dispatch_latency_ms_count", "503", True),
        ("kn_eventing_process_duration_seconds_count", "", False),
        ("kn_revision_pods_count", "", True),
    ],
)
def test_of_what_knatives_brokers_count_by_event_only_failures_are_kept(metric: str, code: str, kept: bool) -> None:
    jobs = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())["scrape_configs"]
    (rule,) = next(job for job in jobs if job["job_name"] == "knative")["metric_relabel_configs"]
    assert (rule["action"], rule["source_labels"]) == ("drop", ["__name__", "http_response_status_code"])
    dropped = re.fullmatch(rule["regex"], f"{metric}{rule['separator']}{code}")
    assert bool(dropped) is not kept
