"""Dead letters as each broker writes them: what failed, why, and whose delivery it was."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from events.catalog import OrderConfirmed, OrderPlaced, subscribers
from events.dead_letters.__main__ import triggers
from events.dead_letters.failure import SILENT, UNANSWERED
from events.dead_letters.tests.support import sink
from events.tests.support import headers

PRODUCTS = "http://products-events.shop.svc.cluster.local"
FILTER = "http://broker-filter.knative-eventing.svc.cluster.local/triggers/shop/products-events/8f6c-41"
TRIGGER = "shop/products-events"
REFUSED = {"knativeerrorcode": "422", "knativeerrordata": base64.b64encode(b"no such order").decode()}


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def nested(text: bytes) -> bytes:
    """What Knative's filter answers: ErrExtensionInfo in JSON."""
    return json.dumps({"errdestination": PRODUCTS, "errresponsebody": encoded(text)}).encode()


FORMS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "Knative's broker names the subscriber": (
        {"knativeerrordest": PRODUCTS, **REFUSED},
        {"trigger": TRIGGER, "destination": PRODUCTS, "error_code": 422, "error": "no such order"},
    ),
    "Knative's broker with TLS": (
        {"knativeerrordest": "https://products-events.shop.svc.cluster.local/", **REFUSED},
        {"trigger": TRIGGER, "error_code": 422, "error": "no such order"},
    ),
    "Knative's broker says nothing": (
        {},
        {"trigger": None, "destination": None, "error_code": None, "error": SILENT},
    ),
    "Knative's broker could not give a reply back to its ingress": (
        {
            "knativeerrordest": "http://broker-ingress.knative-eventing.svc.cluster.local/shop/default",
            "knativeerrorcode": "400",
        },
        {"trigger": None, "error_code": 400, "error": ""},
    ),
    "Knative's broker before 1.9 names its filter": (
        {"knativeerrordest": FILTER, **REFUSED},
        {"trigger": TRIGGER, "destination": FILTER, "error_code": 422, "error": "no such order"},
    ),
    "the filter's way for replies": (
        {"knativeerrordest": f"{FILTER}/reply", "knativeerrorcode": "500"},
        {"trigger": TRIGGER, "error_code": 500},
    ),
    "the filter's way for dead letters, with TLS": (
        {"knativeerrordest": f"{FILTER}/dls".replace("http:", "https:")},
        {"trigger": TRIGGER, "error": UNANSWERED},
    ),
    "Knative's broker before 1.8 sends plain text": (
        {"knativeerrordest": FILTER, "knativeerrorcode": "404", "knativeerrordata": "no such route: /x"},
        {"trigger": TRIGGER, "error_code": 404, "error": "no such route: /x"},
    ),
    "plain text that looks like base64": (
        {"knativeerrordest": FILTER, "knativeerrorcode": "503", "knativeerrordata": "unavailable"},
        {"error": "unavailable"},
    ),
    "a channel that does not know the filter's JSON": (
        {"knativeerrordest": FILTER, "knativeerrorcode": "422", "knativeerrordata": encoded(nested(b"no"))},
        {"trigger": TRIGGER, "destination": PRODUCTS, "error_code": 422, "error": "no"},
    ),
    "such a channel that has cut it": (
        {
            "knativeerrordest": FILTER,
            "knativeerrorcode": "422",
            "knativeerrordata": encoded(nested(b"x" * 3000)[:1024]),
        },
        {"trigger": TRIGGER, "destination": PRODUCTS, "error_code": 422, "error": ""},
    ),
    "the in-memory channel without an answer": (
        {
            "knativeerrordest": PRODUCTS,
            "knativeerrorcode": "500",
            "knativeerrordata": encoded(b"dispatch error: EOF"),
        },
        {"trigger": TRIGGER, "error_code": 500, "error": "dispatch error: EOF"},
    ),
    "the in-memory channel that could make no request": (
        {"knativeerrordest": PRODUCTS, "knativeerrorcode": "-1", "knativeerrordata": ""},
        {"trigger": TRIGGER, "error_code": None, "error": UNANSWERED},
    ),
    "eventing-kafka-broker": (
        {"knativeerrordest": PRODUCTS, "knativeerrorcode": "503", "knativeerrordata": encoded(b"y" * 1024)},
        {"trigger": TRIGGER, "error_code": 503, "error": "y" * 1024},
    ),
    "eventing-kafka-broker without an answer": (
        {"knativeerrordest": PRODUCTS},
        {"trigger": TRIGGER, "destination": PRODUCTS, "error_code": None, "error": UNANSWERED},
    ),
    "eventing-kafka-broker with TLS, without an answer": (
        {"knativeerrordest": "https://products-events.shop.svc.cluster.local:443/"},
        {"trigger": TRIGGER, "error_code": None, "error": UNANSWERED},
    ),
    "eventing-rabbitmq": (
        {"knativeerrordest": PRODUCTS, "knativeerrorcode": "400"},
        {"trigger": TRIGGER, "error_code": 400, "error": ""},
    ),
    "eventing-rabbitmq without an answer": (
        {"knativeerrordest": PRODUCTS, "knativeerrorcode": "-1"},
        {"trigger": TRIGGER, "error_code": None, "error": UNANSWERED},
    ),
    "a body that was cut within a character": (
        {"knativeerrordest": PRODUCTS, "knativeerrordata": encoded(("z" * 767 + "é").encode())[:1024]},
        {"error": "z" * 767},
    ),
    "a subscriber that is none of the type": (
        {"knativeerrordest": "http://users-events.shop.svc.cluster.local", **REFUSED},
        {"trigger": None, "error_code": 422},
    ),
    "an address that is none": (
        {"knativeerrordest": "http://[products-events", "knativeerrorcode": "many"},
        {"trigger": None, "error_code": None},
    ),
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_dead_letter_is_read_in_the_form_of_each_broker(tmp_path: Path, form: str) -> None:
    extensions, expected = FORMS[form]
    async with sink(tmp_path) as it:
        given = headers("1", type=OrderPlaced.TYPE, **extensions)
        assert (await it.http.post("/", headers=given, content=b"{}")).status_code == 204
        (entry,) = await it.entries()
    assert {name: entry[name] for name in expected} == expected


async def test_a_dead_letter_in_structured_mode_is_read_alike(tmp_path: Path) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/orders", "type": OrderPlaced.TYPE}
    event |= {"knativeerrordest": PRODUCTS, "knativeerrorcode": 422, "knativeerrordata": encoded(b"no")}  # type: ignore[dict-item] # an Integer of CloudEvents
    async with sink(tmp_path) as it:
        sent = {"content-type": "application/cloudevents+json"}
        assert (await it.http.post("/", headers=sent, json=event)).status_code == 204
        (entry,) = await it.entries()
    assert (entry["trigger"], entry["error_code"], entry["error"]) == (TRIGGER, 422, "no")


async def test_where_the_broker_says_nothing_all_triggers_of_the_type_are_named(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        for number, event_type in enumerate((OrderConfirmed.TYPE, "other.type.v1")):
            given = headers(str(number), type=event_type)
            assert (await it.http.post("/", headers=given, content=b"{}")).status_code == 204
        other, confirmed = await it.entries()
    assert confirmed["possible_triggers"] == ["products-events", "notifications-events"]
    assert other["possible_triggers"] == []


async def test_a_header_with_the_namespace_of_the_trigger_counts_more_than_the_address(
    tmp_path: Path,
) -> None:
    async with sink(tmp_path) as it:
        given = headers("1", type=OrderPlaced.TYPE, knativeerrordest="http://products-events:8083")
        await it.http.post("/", headers={**given, "kn-namespace": "shop-two"}, content=b"{}")
        (entry,) = await it.entries()
    assert entry["trigger"] == "shop-two/products-events"


async def test_dead_letters_are_counted_by_trigger_and_those_of_none_apart(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        given = [
            {"knativeerrordest": PRODUCTS},
            {"knativeerrordest": PRODUCTS, **REFUSED},
            {},
            {"knativeerrordest": "http://users-events.shop.svc.cluster.local"},
            {"knativeerrordest": FILTER.replace("products-events", "products-order-placed")},
        ]
        for number, extensions in enumerate(given):
            sent = headers(str(number), type=OrderPlaced.TYPE, **extensions)
            assert (await it.http.post("/", headers=sent, content=b"{}")).status_code == 204

    def count(trigger: str) -> float | None:
        return it.registry.get_sample_value("shop_dead_letters_received_total", {"trigger": trigger})

    assert (count(TRIGGER), count("unknown"), count("shop/t")) == (2, 3, 0)
    assert count("shop/products-order-placed") is None, "such a trigger is no more"


def test_the_triggers_that_letters_are_counted_by_are_in_the_namespace_of_the_broker() -> None:
    url = "http://kafka-broker-ingress.knative-eventing.svc.cluster.local/shop/default"
    assert "shop/orders-events" in triggers(url)
    assert len(triggers(url)) == len(subscribers())
