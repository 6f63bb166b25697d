"""The Triggers lose nothing, and the sweeps come in time."""

from __future__ import annotations

from events.catalog import SUBSCRIBERS, SweepDue, trigger_name
from functions.runtime.concurrency import SWEEP_SECONDS
from knative.local import manifests as m
from knative.local.broker.config import DeliverySpec


def test_each_trigger_retries_and_then_keeps_what_could_not_be_delivered(base: m.Manifests) -> None:
    for trigger in base.of(m.EVENTING, "Trigger"):
        delivery = trigger["spec"]["delivery"]
        assert (delivery["retry"], delivery["backoffPolicy"], delivery["backoffDelay"]) == (
            5,
            "exponential",
            "PT0.5S",
        )
        assert delivery["deadLetterSink"]["ref"]["name"] == "dead-letters"


def test_a_domains_triggers_lie_in_its_own_file(base: m.Manifests) -> None:
    for trigger in base.of(m.EVENTING, "Trigger"):
        subscriber = trigger["spec"]["subscriber"]["ref"]["name"].removesuffix("-events")
        assert m.name_of(trigger).startswith(f"{subscriber}-")


def test_a_trigger_is_named_as_dead_letters_name_it(base: m.Manifests) -> None:
    named = {trigger_name(domain, payload) for payload, domains in SUBSCRIBERS.items() for domain in domains}
    assert named == {m.name_of(trigger) for trigger in base.of(m.EVENTING, "Trigger")}


def test_a_sweep_ends_before_the_broker_takes_its_tick_for_lost(base: m.Manifests) -> None:
    ticks = [t for t in base.of(m.EVENTING, "Trigger") if _type(t) == SweepDue.TYPE]
    assert not any("timeout" in tick["spec"]["delivery"] for tick in ticks), "compare with that, then"
    # What all share is swept before: some seconds are left for it.
    assert DeliverySpec().timeout - 10 >= SWEEP_SECONDS


def test_the_sweeps_tick_goes_to_the_broker_as_the_catalogue_says(base: m.Manifests) -> None:
    (ping,) = base.of(m.SOURCES, "PingSource")
    namespace, name = ping["metadata"]["namespace"], ping["metadata"]["name"]
    assert f"/apis/v1/namespaces/{namespace}/pingsources/{name}" == SweepDue.SOURCE
    assert ping["spec"]["sink"]["ref"]["kind"] == "Broker"


def _type(trigger: m.Document) -> str:
    return str(trigger["spec"]["filter"]["attributes"]["type"])
