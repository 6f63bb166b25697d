"""Knative's eventing data plane contract (knative/specs), and what its brokers add, under the names of the sections.

What the other modules here show is not repeated.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from events.http_client import Response
from events.tests.support import Answer, Subscriber, subscribed, until
from knative.local.broker import delivery as rules
from knative.local.broker.delivery import Delivered, Failed
from knative.local.broker.tests.support import FAST, broker, running, trigger

FEATURE = {
    "specversion": "1.0",
    "type": "com.example.someevent",
    "time": "2018-04-05T03:56:24Z",
    "id": "1234-1234-1234",
    "source": "/mycontext/subcontext",
}
HELLO = b'{\n    "message": "Hello World!"\n}\n'


NEVER_AGAIN = (300, 301, 302, 307, 308, 400, 401, 402, 403, 405, 406, 410, 413, 415, 418, 422, 451)
AGAIN = (404, 408, 409, 429, 500, 501, 502, 503, 504, 599, 600, 999)


class TestDataPlaneEventAcknowledgementAndDeliveryRetry:
    """knative/specs, data plane: Event Acknowledgement and Delivery Retry."""

    @pytest.mark.parametrize("status", range(200, 300))
    def test_2xx_completes_the_delivery(self, status: int) -> None:
        assert rules.judge(Response(status, (), b""), now=0) == Delivered()

    @pytest.mark.parametrize("status", [*NEVER_AGAIN, *AGAIN])
    def test_other_codes_are_errors_and_are_retried_as_the_table_says(self, status: int) -> None:
        outcome = rules.judge(Response(status, (), b"why"), now=0)
        assert outcome == Failed(status, b"why", retryable=status in AGAIN)

    async def test_each_is_so_on_the_wire(self, tmp_path: Path) -> None:
        wanted = dict.fromkeys(NEVER_AGAIN, 1) | {status: 1 + 3 for status in AGAIN if status < 600}
        async with AsyncExitStack() as stack:
            sink = await stack.enter_async_context(subscribed())
            asked = {status: await stack.enter_async_context(subscribed(*[Answer(status)] * 9)) for status in wanted}
            documents = [trigger(f"t{status}", one.url) for status, one in asked.items()]
            spec = {**FAST, "deadLetterSink": {"uri": sink.url}}
            it = await stack.enter_async_context(running(tmp_path, broker(delivery=spec), *documents))
            await it.post()
            await until(lambda: len(sink.received) == len(wanted))
            assert {status: len(one.received) for status, one in asked.items()} == wanted
            codes = sorted(int(letter.headers["ce-knativeerrorcode"]) for letter in sink.received)
            assert codes == sorted(wanted)

    async def test_duplicates_are_accepted_and_every_attempt_keeps_source_and_id(self, tmp_path: Path) -> None:
        async with (
            subscribed(Answer(500)) as one,
            running(tmp_path, broker(delivery=FAST), trigger("t", one.url)) as it,
        ):
            for _ in range(2):
                assert (await it.post("same")).status_code == 202
            assert (await it.post("same", source="/another")).status_code == 202
            await until(lambda: len(one.received) == 4)
        sources = sorted((letter.id, letter.headers["ce-source"]) for letter in one.received)
        assert sources == [("same", "/another")] + [("same", "/orders")] * 3


class TestDataPlaneHttpVerbs:
    """knative/specs, data plane: HTTP Verbs."""

    async def test_a_probe_by_options_is_told_of_post(self, tmp_path: Path) -> None:
        async with running(tmp_path, broker()) as it:
            answer = await it.http.options("/shop/default")
        assert answer.status_code == 200
        assert "POST" in answer.headers["allow"]


REPLY: Sequence[tuple[bytes, bytes]] = [
    (b"ce-specversion", b"1.0"),
    (b"ce-id", b"reply"),
    (b"ce-source", b"/reply"),
    (b"ce-type", b"reply"),
]


async def replied(tmp_path: Path, answer: Answer, **spec: Any) -> tuple[Subscriber, Subscriber, Subscriber]:
    """Who was asked (and answered), who got the replies, and the dead letters, once all is quiet."""
    async with subscribed(*[answer] * 5) as asked, subscribed() as others, subscribed() as sink:
        delivery = {"retry": 0, "deadLetterSink": {"uri": sink.url}}
        documents = [
            broker(delivery=delivery),
            trigger("asked", asked.url, filter={"attributes": {"type": "shop.order.placed.v1"}}, **spec),
            trigger("others", others.url, filter={"attributes": {"type": "reply"}}),
        ]
        async with running(tmp_path, *documents) as it:
            await it.post()
            pending = "shop_broker_pending"
            await until(
                lambda: (
                    len(asked.received) == 1
                    and not it.metric(pending, trigger="shop/asked")
                    and not it.metric(pending, trigger="shop/others")
                )
            )
    return asked, others, sink


class TestDataPlaneDerivedReplyEvents:
    """knative/specs, data plane: Derived (Reply) Events."""

    async def test_subscribers_are_told_that_a_reply_is_welcome_and_dead_letter_sinks_not(self, tmp_path: Path) -> None:
        asked, _, sink = await replied(tmp_path, Answer(400))
        assert asked.received[0].headers["prefer"] == "reply"
        assert "prefer" not in sink.received[0].headers

    async def test_a_reply_may_come_in_binary_mode(self, tmp_path: Path) -> None:
        _, others, sink = await replied(tmp_path, Answer(200, [*REPLY, (b"content-type", b"text/plain")], b"hi"))
        assert [(one.id, one.body) for one in others.received] == [("reply", b"hi")]
        assert sink.received == []

    async def test_a_reply_may_come_in_structured_mode(self, tmp_path: Path) -> None:
        document = {**FEATURE, "type": "reply", "data": 1}
        head = [(b"content-type", b"application/cloudevents+json; charset=utf-8")]
        _, others, _ = await replied(tmp_path, Answer(200, head, json.dumps(document).encode()))
        assert [(one.id, one.body) for one in others.received] == [(FEATURE["id"], b"1")]

    @pytest.mark.parametrize("status", [201, 202, 203, 206])
    async def test_an_event_in_another_answer_than_200_must_not_be_routed(self, tmp_path: Path, status: int) -> None:
        _, others, sink = await replied(tmp_path, Answer(status, REPLY, b"{}"))
        assert (others.received, sink.received) == ([], [])

    async def test_200_without_a_payload_is_no_reply(self, tmp_path: Path) -> None:
        _, others, sink = await replied(tmp_path, Answer(200))
        assert (others.received, sink.received) == ([], [])

    async def test_a_batch_is_no_reply_event(self, tmp_path: Path) -> None:
        head = [(b"content-type", b"application/cloudevents-batch+json")]
        _, others, sink = await replied(tmp_path, Answer(200, head, json.dumps([FEATURE]).encode()))
        assert others.received == []
        assert sink.received[0].headers["ce-knativeerrorcode"] == "502"


class TestKnativeDeadLetterExtensions:
    """Knative, Handling Delivery Failure: knativeerrordest, knativeerrorcode, knativeerrordata."""

    @pytest.mark.parametrize("said", [b"", b"plain words", b"\xff\x00 bytes", "\u20ac".encode() * 2000])
    async def test_the_sink_gets_the_event_whole_with_what_went_wrong(self, tmp_path: Path, said: bytes) -> None:
        asked, _, sink = await replied(tmp_path, Answer(409, body=said))
        sent, dead = asked.received[0], sink.received[0]
        assert dead.body == sent.body
        assert {name: value for name, value in sent.headers.items() if name.startswith("ce-")}.items() <= (
            dead.headers.items()
        )
        assert dead.headers["ce-knativeerrordest"] == asked.url
        assert dead.headers["ce-knativeerrorcode"] == "409"
        told = dead.headers.get("ce-knativeerrordata", "")
        assert len(told) <= 1024
        assert base64.b64decode(told) == said[:768]

    async def test_extensions_of_an_earlier_failure_are_replaced(self, tmp_path: Path) -> None:
        async with subscribed(Answer(403)) as asked, subscribed() as sink:
            delivery = {"retry": 0, "deadLetterSink": {"uri": sink.url}}
            async with running(tmp_path, broker(delivery=delivery), trigger("t", asked.url)) as it:
                await it.post(knativeerrordest="http://old", knativeerrorcode="500", knativeerrordata="b2xk")
                await until(lambda: len(sink.received) == 1)
        assert sink.received[0].headers["ce-knativeerrordest"] == asked.url
        assert sink.received[0].headers["ce-knativeerrorcode"] == "403"


class TestKnativeBrokerTtl:
    """Knative's brokers: knativebrokerttl bounds how far an event and its replies go, 255 hops where nobody says."""

    @pytest.mark.parametrize(("given", "left"), [(None, 255), ("255", 254), ("2", 1), ("many", 255), ("1", 0)])
    def test_each_passage_takes_one(self, given: str | None, left: int) -> None:
        attributes = {} if given is None else {rules.TTL: given}
        assert rules.incoming_ttl(attributes) == left
        assert attributes == {}

    async def test_it_is_never_shown_to_a_subscriber(self, tmp_path: Path) -> None:
        async with subscribed() as one, running(tmp_path, broker(), trigger("t", one.url)) as it:
            await it.post(knativebrokerttl="7")
            await until(lambda: len(one.received) == 1)
        assert "ce-knativebrokerttl" not in one.received[0].headers
