"""The content of the dashboards: a row for each group of panels, and a line for each panel."""

from __future__ import annotations

from typing import NamedTuple


class P(NamedTuple):
    """A panel: its title, its queries by legend, and the unit (as Grafana names it)."""

    title: str
    queries: dict[str, str]
    unit: str = "short"


Rows = dict[str, list[P]]

_HTTP = "http_server_request_duration_seconds"
_RPC = "rpc_server_duration_seconds"
_R = "$__rate_interval"


def _quantiles(metric: str, by: str, select: str = "", shares: tuple[float, ...] = (0.5, 0.95, 0.99)) -> dict[str, str]:
    buckets = f"sum by (le, {by}) (rate({metric}_bucket{{{select}}}[{_R}]))"
    return {f"p{share * 100:g} {{{{{by}}}}}": f"histogram_quantile({share}, {buckets})" for share in shares}


def _rate(metric: str, by: str, select: str = "") -> dict[str, str]:
    return {f"{{{{{by}}}}}": f"sum by ({by}) (rate({metric}{{{select}}}[{_R}]))"}


def _share(legend: str, part: str, whole: str) -> dict[str, str]:
    return {legend: f"(sum(rate({part}[{_R}])) or vector(0)) / sum(rate({whole}[{_R}]))"}


def _hourly(legend: str, metric: str) -> dict[str, str]:
    return {legend: f"sum(increase({metric}[1h]))"}


_FAULTS = 'code=~"UNKNOWN|INTERNAL|UNAVAILABLE|DEADLINE_EXCEEDED|DATA_LOSS|UNIMPLEMENTED"'
_COMMITTED = "shop_events_committed_total"

SERVICES: Rows = {
    "Gateway": [
        P("Requests", _rate(f"{_HTTP}_count", "route"), "reqps"),
        P("Share of 5xx", _share("5xx", f'{_HTTP}_count{{status=~"5.."}}', f"{_HTTP}_count"), "percentunit"),
        P("Answers by status", _rate(f"{_HTTP}_count", "status"), "reqps"),
        P("Duration", _quantiles(_HTTP, "service"), "s"),
        P("Duration by route", _quantiles(_HTTP, "route", shares=(0.99,)), "s"),
    ],
    "RPCs": [
        P("Calls", _rate(f"{_RPC}_count", "method"), "reqps"),
        P("Share of faults", _share("faults", f"{_RPC}_count{{{_FAULTS}}}", f"{_RPC}_count"), "percentunit"),
        P("Answers by code", _rate(f"{_RPC}_count", "code"), "reqps"),
        P("Duration by service", _quantiles(_RPC, "service", shares=(0.5, 0.99)), "s"),
        P("Duration by method", _quantiles(_RPC, "method", shares=(0.99,)), "s"),
    ],
    "Parts": [
        P("Parts that answer", {"{{instance}}": 'up{job="shop"}'}),
        P("Open circuits", {"{{circuit}}": "max by (circuit) (shop_circuit_open)"}),
    ],
}

ORDERS: Rows = {
    "Saga": [
        P("Orders by status", _rate("shop_orders_total", "status"), "ops"),
        P("Cancelled by reason", _rate("shop_orders_cancelled_total", "reason"), "ops"),
        P("From placed to settled", _quantiles("shop_saga_seconds", "outcome"), "s"),
    ],
    "Outbox": [
        P("Events committed", _rate(_COMMITTED, "type"), "ops"),
        P("Waiting", {"{{service}}": "max by (service) (shop_outbox_rows)"}),
        P("Age of the oldest", {"{{service}}": "max by (service) (shop_outbox_oldest_seconds)"}, "s"),
    ],
    "Broker of make up and compose.yaml": [  # Knative's broker has the alert EventsRefused
        P("Delivered", _rate("shop_broker_deliveries_total", "trigger", 'result="delivered"'), "ops"),
        P("Repeated", _rate("shop_broker_retries_total", "trigger"), "ops"),
        P("Given up", _rate("shop_broker_deliveries_total", "trigger", 'result="dead_lettered"'), "ops"),
        P("Waiting for a subscriber", {"{{trigger}}": "sum by (trigger) (shop_broker_pending)"}),
    ],
    "Dead letters": [
        P("Taken in per hour", {"{{trigger}}": "sum by (trigger) (increase(shop_dead_letters_received_total[1h]))"}),
        P("Kept", {"{{status}}": "sum by (status) (shop_dead_letters)"}),
    ],
    "Subscribers": [
        P("Handled", _rate("shop_event_handling_seconds_count", "type", 'outcome="handled"'), "ops"),
        P("Handling", _quantiles("shop_event_handling_seconds", "service"), "s"),
        P("Outcomes", _rate("shop_event_handling_seconds_count", "outcome"), "ops"),
    ],
}

_REVENUE = (
    "sum by (currency) (increase(shop_revenue_minor_total[1h]))"
    " / on (currency) max by (currency) (max_over_time(shop_currency_minor_units[1h]))"
)
_OUT_OF_STOCK = 'shop_orders_cancelled_total{reason="OUT_OF_STOCK"}'

BUSINESS: Rows = {
    "Money": [
        P("Revenue per hour", {"{{currency}}": _REVENUE}),
        P("Payments", _rate("shop_payments_total", "outcome"), "ops"),
        P(
            "Share declined",
            _share(
                "declined",
                'shop_payments_total{outcome="declined"}',
                'shop_payments_total{outcome=~"captured|declined"}',
            ),
            "percentunit",
        ),
    ],
    "Orders": [
        P("Placed per hour", _hourly("placed", 'shop_orders_total{status="PLACED"}')),
        P(
            "Confirmed of placed",
            _share("confirmed", 'shop_orders_total{status="CONFIRMED"}', 'shop_orders_total{status="PLACED"}'),
            "percentunit",
        ),
        P("New customers per hour", _hourly("registered", f'{_COMMITTED}{{type="shop.user.registered.v1"}}')),
    ],
    "Stock": [
        P("Orders that stock could not meet, per hour", _hourly("out of stock", _OUT_OF_STOCK)),
        P("Products that ran low, per hour", _hourly("ran low", f'{_COMMITTED}{{type="shop.product.stock.low.v1"}}')),
    ],
}


def _revision(metric: str, legend: str = "") -> dict[str, str]:
    return {f"{legend} {{{{kn_revision_name}}}}".strip(): f"max by (kn_revision_name) (kn_revision_{metric})"}


def _activator(metric: str, legend: str = "") -> dict[str, str]:
    query = f"sum by (kn_revision_name) (kn_revision_request_{metric})"
    return {f"{legend} {{{{kn_revision_name}}}}".strip(): query}


# Knative's own metrics, as its activator and autoscaler emit them (tests/knative_metrics.txt) once the ConfigMap
# config-observability in knative-serving says `metrics-protocol: prometheus`.
AUTOSCALING: Rows = {
    "Pods": [
        P("Wanted", _revision("pods_desired")),
        P("There", _revision("pods_count")),
        P("Not ready yet", _revision("pods_not_ready_count") | _revision("pods_pending_count", "pending")),
    ],
    "Load": [
        P("Requests at once per pod", _revision("concurrency_stable") | _revision("concurrency_panic", "panic")),
        P("Target", _revision("concurrency_target")),
        P("Panic mode", _revision("panic_mode")),
        P("In the activator", _activator("concurrency") | _activator("queued", "waiting")),
    ],
}

CLUSTER_ONLY = frozenset({"autoscaling"})
"""The dashboards that have data only in a cluster that runs Knative."""

DASHBOARDS: dict[str, tuple[str, Rows]] = {
    "services": ("Services", SERVICES),
    "orders-and-events": ("Orders and events", ORDERS),
    "autoscaling": ("Autoscaling", AUTOSCALING),
    "business": ("Business", BUSINESS),
}
