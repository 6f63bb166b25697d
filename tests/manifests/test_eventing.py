"""The Triggers lose nothing, and the sweeps come in time."""

from __future__ import annotations

from events.catalog import SUBSCRIBERS, SweepDue, trigger_name
from functions.runtime.sweeps import SWEEP_SECONDS
from knative.local import manifests as m
from knative.local.broker.config import DeliverySpec
from knative.local.broker.filters import event_types


def test_each_trigger_retries_and_then_keeps_what_could_not_be_delivered(base: m.Manifests) -> None:
    for trigger in base.of(m.EVENTING, "Trigger"):
        delivery = trigger["spec"]["delivery"]
        assert (delivery["retry"], delivery["backoffPolicy"], delivery["backoffDelay"]) == (
            5,
            "exponential",
            "PT0.5S",
        )
        assert delivery["deadLetterSink"]["ref"]["name"] == "dead-letters"


def test_a_service_that_hears_events_has_one_trigger_of_its_name(base: m.Manifests) -> None:
    triggers = base.of(m.EVENTING, "Trigger")
    subscribers = [trigger["spec"]["subscriber"]["ref"]["name"] for trigger in triggers]
    assert subscribers == [m.name_of(trigger) for trigger in triggers]
    named = {trigger_name(domain) for domains in SUBSCRIBERS.values() for domain in domains}
    assert sorted(named) == sorted(subscribers)


def test_a_sweep_ends_before_the_broker_takes_its_tick_for_lost(base: m.Manifests) -> None:
    triggers = base.of(m.EVENTING, "Trigger")
    ticks = [trigger for trigger in triggers if SweepDue.TYPE in event_types(trigger["spec"])]
    assert ticks
    assert not any("timeout" in tick["spec"]["delivery"] for tick in ticks), "compare with that, then"
    # What all share is swept before: some seconds are left for it.
    assert DeliverySpec().timeout - 10 >= SWEEP_SECONDS


def test_the_sweeps_tick_goes_to_the_broker_as_the_catalogue_says(base: m.Manifests) -> None:
    (ping,) = base.of(m.SOURCES, "PingSource")
    namespace, name = ping["metadata"]["namespace"], ping["metadata"]["name"]
    assert f"/apis/v1/namespaces/{namespace}/pingsources/{name}" == SweepDue.SOURCE
    assert ping["spec"]["sink"]["ref"]["kind"] == "Broker"
