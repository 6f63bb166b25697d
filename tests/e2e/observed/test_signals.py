"""What each service says of an order: its log lines, metrics and spans, as tests/signals.py lists them."""

from __future__ import annotations

import urllib.request
from collections import defaultdict
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.observed.receiver import Receiver
from tests.e2e.observed.stories import Story
from tests.e2e.platform import LocalPlatform
from tests.signals import COMMON, Signal, signals, traced

MAPPINGS = {"log", "metric", "span"}


@pytest.fixture(scope="module")
def seen(
    platform: LocalPlatform, receiver: Receiver, request: pytest.FixtureRequest
) -> dict[tuple[str, str, str], list[set[str]]]:
    """For each service, kind and name the fields of everything with it, once the stories have been told."""
    stories = ("confirmed", "declined", "retried", "cancelled", "refunded", "shipped")
    told: list[Story] = [request.getfixturevalue(name) for name in stories]
    receiver.await_spans(lambda spans: any(span.name == "send order_confirmed" for span in spans), told[0].trace_id)
    found: dict[tuple[str, str, str], list[set[str]]] = defaultdict(list)
    for part, about in platform.state()["parts"].items():
        for line in platform.log(part):
            found[part, "log", line["event"]].append(set(line))
        for name, labels in samples(about["url"]):
            found[part, "metric", name].append(labels)
    for span in list(receiver.spans.values()):
        found[span.service, "span", span.name].append(set(span.attributes))
    return found


def samples(url: str) -> list[tuple[str, set[str]]]:
    """Name and labels of what a part has counted so far."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310 - our own address
        families: Any = text_string_to_metric_families(answer.read().decode())
    return [(s.name, set(s.labels)) for family in families for s in family.samples if s.value > 0]


@pytest.mark.parametrize("signal", signals(), ids=lambda signal: f"{signal.service} {signal.kind} {signal.name}")
def test_the_service_gives_the_signal(seen: dict[tuple[str, str, str], list[set[str]]], signal: Signal) -> None:
    wanted = signal.fields | COMMON if signal.kind == "log" else signal.fields
    given = seen[signal.service, signal.kind, signal.name]
    assert any(wanted <= fields for fields in given), (
        sorted(wanted),
        [sorted(fields) for fields in given[:3]],
    )


@pytest.mark.parametrize("service", sorted(traced()))
def test_every_service_of_a_trace_has_lines_of_all_kinds(service: str) -> None:
    assert {signal.kind for signal in signals() if signal.service == service} == MAPPINGS


def test_lines_of_traced_work_name_their_span(platform: LocalPlatform, receiver: Receiver, confirmed: Story) -> None:
    named = [
        (part, line["span_id"])
        for part in platform.state()["parts"]
        for line in platform.log(part)
        if line.get("trace_id") == confirmed.trace_id
    ]
    assert {part for part, _ in named} >= {"gateway", "orders", "products", "payments", "notifications"}
    wanted = {span_id for _, span_id in named}
    receiver.await_spans(lambda spans: wanted <= {span.span_id for span in spans}, confirmed.trace_id)
