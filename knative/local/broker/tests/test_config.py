"""Manifests become a configuration, or a message that names the one at fault."""

from __future__ import annotations

from typing import Any

import pytest

from knative.local.broker.config import ConfigError, DeliverySpec, load, parse_duration
from knative.local.broker.tests.support import as_yaml, broker, trigger

URL = "http://127.0.0.1:1/"
SINK = {"uri": "http://127.0.0.1:2/sink"}


def delivery_of(*documents: dict[str, Any]) -> DeliverySpec:
    return load(as_yaml(documents)).triggers["shop/default"][0].delivery


def test_a_broker_that_says_nothing_delivers_as_knative_does_by_default() -> None:
    delivery = delivery_of(broker(), trigger("t", URL))
    assert (delivery.retry, delivery.exponential, delivery.backoff_delay) == (10, True, 0.2)


def test_a_trigger_takes_its_brokers_delivery() -> None:
    spec = {"retry": 5, "backoffPolicy": "linear", "backoffDelay": "PT0.5S", "timeout": "PT3S"}
    delivery = delivery_of(broker(delivery={**spec, "deadLetterSink": SINK}), trigger("t", URL))
    assert delivery == DeliverySpec(5, False, 0.5, 3.0, dead_letter_url=SINK["uri"])


def test_a_triggers_own_delivery_wins_but_for_the_sink_that_it_does_not_name() -> None:
    inherited = broker(delivery={"retry": 5, "deadLetterSink": SINK})
    delivery = delivery_of(inherited, trigger("t", URL, delivery={"timeout": "PT1S"}))
    assert (delivery.retry, delivery.timeout, delivery.dead_letter_url) == (0, 1.0, SINK["uri"])
    own = {"uri": "http://127.0.0.1:3/"}
    delivery = delivery_of(inherited, trigger("t", URL, delivery={"deadLetterSink": own}))
    assert delivery.dead_letter_url == own["uri"]


def test_a_reference_that_is_not_resolved_is_refused() -> None:
    ref = {"apiVersion": "v1", "kind": "Service", "name": "orders-events"}
    text = as_yaml([broker(), trigger("t", URL, subscriber={"ref": ref})])
    with pytest.raises(ConfigError, match=r"Trigger shop/t: subscriber\.ref 'orders-events' is not resolved"):
        load(text)


def test_other_kinds_are_passed_over() -> None:
    others = [
        {"apiVersion": "v1", "kind": "ConfigMap"},
        {"apiVersion": "serving.knative.dev/v1", "kind": "Service"},
    ]
    assert list(load(as_yaml([*others, broker()])).triggers) == ["shop/default"]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "no Broker"),
        ([trigger("t", URL)], "Trigger shop/t: there is no Broker shop/default"),
        ([broker(), trigger("t", URL), trigger("t", URL)], "Trigger shop/t: defined twice"),
        ([broker(), trigger("t", "orders")], "Trigger shop/t: subscriber: 'orders' is no http URL"),
        ([broker(), trigger("t", URL, subscriber=None)], "Trigger shop/t: subscriber is missing"),
        (
            [broker(), trigger("t", URL, filters=[{"cesql": "x"}])],
            r"Trigger shop/t: .*unknown dialect 'cesql'",
        ),
        (
            [broker(delivery={"backoffDelay": "5s", "backoffPolicy": "linear"})],
            "Broker shop/default: .*ISO 8601",
        ),
        ([broker(delivery={"retry": -1})], "retry"),
        ([broker(delivery={"backoffPolicy": "random"})], "backoffPolicy"),
        ([broker(delivery={"timeout": "PT0S"})], "timeout"),
        ([broker(delivery={"format": "xml"})], "format"),
        ([broker() | {"metadata": "default"}], "a Broker's metadata: a mapping"),
        ([broker() | {"spec": ["delivery"]}], "spec: a mapping"),
        ([broker(), trigger("t", URL, broker="", brokerRef="default")], "brokerRef: a mapping"),
        ([broker(), trigger("t", URL, subscriber={"ref": "orders"})], "ref: a mapping"),
        ([broker(), trigger("t", "http://[::1")], "is no http URL"),
    ],
)
def test_a_manifest_at_fault_is_named(documents: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(as_yaml(documents))


@pytest.mark.parametrize("text", ["a: [", "a: 2026-13-45", "[" * 5000])
def test_what_is_no_yaml_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no YAML"):
        load(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT0.5S", 0.5), ("PT1M30S", 90), ("P1DT2H", 93600), ("P1W", 604800), ("PT0S", 0), ("PT0,25S", 0.25)],
)
def test_durations_are_iso_8601(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "5s", "P1Y", "PT-1S", None, 5])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        parse_duration(text)
