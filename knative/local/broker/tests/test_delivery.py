"""Events go out: tried again, given up, answered, and never held up by somebody else's slowness."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from events.http_client import Response
from events.tests.support import Answer, free_port, subscribed, until
from knative.local.broker import delivery as rules
from knative.local.broker.config import DeliverySpec
from knative.local.broker.delivery import Delivered, Failed
from knative.local.broker.dispatcher import DispatchLimits
from knative.local.broker.tests.support import FAST, any_of, broker, running, trigger

REPLY_HEADERS = (
    (b"ce-specversion", b"1.0"),
    (b"ce-id", b"r1"),
    (b"ce-source", b"/reply"),
    (b"ce-type", b"reply"),
)


async def test_an_event_goes_to_every_trigger_whose_filter_passes(tmp_path: Path) -> None:
    async with subscribed() as one, subscribed() as two, subscribed() as three:
        wanted = {"filter": {"attributes": {"type": "shop.order.placed.v1"}}}
        documents = [
            broker(),
            trigger("one", one.url, **wanted),
            trigger("two", f"{two.url}/in?x=1"),
            trigger("three", three.url, filter={"attributes": {"type": "other"}}),
        ]
        async with running(tmp_path, *documents) as it:
            await it.post("a")
            await until(lambda: len(one.received) == len(two.received) == 1)
            await it.post("b", type="other")
            await until(lambda: len(two.received) == 2 and len(three.received) == 1)
    assert (one.ids, three.ids) == (["a"], ["b"])
    assert two.received[0].path == "/in"


@pytest.mark.parametrize("status", [404, 408, 409, 429, 500, 503])
async def test_a_transient_failure_is_tried_again_until_it_works(tmp_path: Path, status: int) -> None:
    async with subscribed(Answer(status), Answer(status)) as subscriber:
        documents = broker(delivery=FAST), trigger("t", subscriber.url)
        async with running(tmp_path, *documents) as it:
            await it.post()
            await until(lambda: it.metric("shop_broker_deliveries_total", trigger="shop/t", result="delivered") == 1)
            assert it.metric("shop_broker_retries_total", trigger="shop/t") == 2
            assert it.metric("shop_broker_pending", trigger="shop/t") == 0
    assert len(subscriber.received) == 3


async def test_a_permanent_failure_goes_to_the_dead_letter_sink_at_once_with_its_reason(
    tmp_path: Path,
) -> None:
    said = b"no such order \xff" + b"x" * 2000
    async with subscribed(Answer(422, body=said)) as subscriber, subscribed() as sink:
        spec = {**FAST, "deadLetterSink": {"uri": f"{sink.url}/dead"}}
        async with running(tmp_path, broker(delivery=spec), trigger("t", subscriber.url)) as it:
            await it.post("1", subject="ord_1")
            await until(lambda: len(sink.received) == 1)
    assert len(subscriber.received) == 1
    got = sink.received[0]
    assert (got.path, got.id, got.body) == ("/dead", "1", b'{"a": 1}')
    assert got.headers["ce-subject"] == "ord_1"
    assert got.headers["ce-knativeerrordest"] == subscriber.url
    assert got.headers["ce-knativeerrorcode"] == "422"
    assert len(got.headers["ce-knativeerrordata"]) == 1024
    assert base64.b64decode(got.headers["ce-knativeerrordata"]) == said[:768]


async def test_after_the_last_retry_the_triggers_own_sink_gets_the_event(tmp_path: Path) -> None:
    async with subscribed(*[Answer(500)] * 9) as subscriber, subscribed() as brokers, subscribed() as own:
        general = {"deadLetterSink": {"uri": brokers.url}}
        special = {**FAST, "deadLetterSink": {"uri": own.url}}
        documents = broker(delivery=general), trigger("t", subscriber.url, delivery=special)
        async with running(tmp_path, *documents) as it:
            await it.post()
            await until(lambda: len(own.received) == 1)
    assert len(subscriber.received) == 1 + FAST["retry"]  # type: ignore[operator] # of a dict of many kinds
    assert brokers.received == []


async def test_a_subscriber_that_is_not_there_is_a_500_for_the_dead_letter_sink(tmp_path: Path) -> None:
    async with subscribed() as gone:
        pass
    async with subscribed() as sink:
        spec = {**FAST, "deadLetterSink": {"uri": sink.url}}
        async with running(tmp_path, broker(delivery=spec), trigger("t", gone.url)) as it:
            await it.post()
            await until(lambda: len(sink.received) == 1)
    error = base64.b64decode(sink.received[0].headers["ce-knativeerrordata"]).decode()
    assert sink.received[0].headers["ce-knativeerrorcode"] == "500"
    assert error.startswith("dispatch error: no connection to")


async def test_a_subscriber_that_is_still_starting_uses_up_no_retries(tmp_path: Path) -> None:
    port = free_port()
    limits = DispatchLimits(starting_seconds=60.0)
    never = broker(delivery={"retry": 0})
    async with running(tmp_path, never, trigger("t", f"http://127.0.0.1:{port}"), limits=limits) as it:
        await it.post()
        await until(lambda: it.metric("shop_broker_attempts_total", trigger="shop/t", result="failure") >= 1)
        async with subscribed(port=port) as started:
            await until(lambda: started.ids == ["1"])
        assert it.metric("shop_broker_pending", trigger="shop/t") == 0


async def test_a_subscriber_that_does_not_answer_in_time_is_tried_again(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with subscribed(gate=gate) as subscriber:
        documents = broker(delivery={**FAST, "timeout": "PT0.05S"}), trigger("t", subscriber.url)
        async with running(tmp_path, *documents) as it:
            await it.post()
            await until(lambda: len(subscriber.received) == 2)
            gate.set()
            await until(lambda: it.metric("shop_broker_deliveries_total", trigger="shop/t", result="delivered") == 1)


async def test_a_dead_letter_sink_that_fails_is_asked_until_it_takes_the_event(tmp_path: Path) -> None:
    async with subscribed(Answer(400)) as subscriber, subscribed(Answer(503)) as sink:
        spec = {"retry": 0, "deadLetterSink": {"uri": sink.url}}
        async with running(tmp_path, broker(delivery=spec), trigger("t", subscriber.url)) as it:
            await it.post()
            await until(
                lambda: it.metric("shop_broker_deliveries_total", trigger="shop/t", result="dead_lettered") == 1
            )
            assert it.metric("shop_broker_pending", trigger="shop/t") == 0
    assert len(sink.received) == 2


async def test_without_a_sink_the_event_is_counted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dropped = {"trigger": "shop/t", "result": "dropped"}
    async with (
        subscribed(Answer(400)) as subscriber,
        running(tmp_path, broker(), trigger("t", subscriber.url)) as it,
    ):
        await it.post()
        await until(lambda: it.metric("shop_broker_deliveries_total", **dropped) == 1)
    assert "event dropped: no dead-letter sink" in caplog.text


async def test_the_log_says_that_nobody_answered_and_whom_it_is_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = "http://127.0.0.1:9"
    async with running(tmp_path, broker(delivery=FAST), trigger("t", nobody)) as it:
        await it.post(subject="ord_1")
        await until(lambda: it.metric("shop_broker_retries_total", trigger="shop/t") >= 1)
    line = next(record.__dict__ for record in caplog.records if "retrying" in record.message)
    assert line["reason"].startswith("dispatch error: ")
    assert line["subject"] == "ord_1"


async def test_a_slow_subscriber_holds_up_no_other(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with subscribed(gate=gate) as slow, subscribed() as quick:
        documents = broker(), trigger("slow", slow.url), trigger("quick", quick.url)
        async with running(tmp_path, *documents) as it:
            await asyncio.gather(*(it.post(str(number)) for number in range(100)))
            await until(lambda: len(quick.received) == 100)
            assert len(slow.received) == 32  # as many as are allowed at once
            assert it.metric("shop_broker_pending", trigger="shop/slow") == 100
            gate.set()
            await until(lambda: len(slow.received) == 100)


async def test_a_slow_type_holds_up_no_other_type_of_its_trigger(tmp_path: Path) -> None:
    gate = asyncio.Event()
    types = "shop.order.placed.v1", "shop.user.challenged.v1"
    async with subscribed(gate=gate) as subscriber:
        limits = DispatchLimits(parallel=2, in_memory=3)
        documents = broker(), trigger("t", subscriber.url, filters=any_of(*types))
        async with running(tmp_path, *documents, limits=limits) as it:
            await asyncio.gather(*(it.post(str(number)) for number in range(10)))
            await it.post("quick", type=types[1])
            await it.post("unheard", type="shop.order.shipped.v1")
            await until(lambda: "quick" in subscriber.ids)
            assert len(subscriber.received) == 3
            assert it.metric("shop_broker_pending", trigger="shop/t") == 11
            gate.set()
            await until(lambda: it.metric("shop_broker_pending", trigger="shop/t") == 0)
    assert sorted(subscriber.ids) == sorted([*map(str, range(10)), "quick"])


async def test_a_reply_goes_through_the_broker_again(tmp_path: Path) -> None:
    answer = Answer(200, (*REPLY_HEADERS, (b"content-type", b"text/plain")), b"hello")
    async with subscribed(answer) as subscriber, subscribed() as listener:
        documents = (
            broker(),
            trigger("asks", subscriber.url, filter={"attributes": {"type": "shop.order.placed.v1"}}),
            trigger("listens", listener.url, filter={"attributes": {"type": "reply"}}),
        )
        async with running(tmp_path, *documents) as it:
            await it.post()
            await until(lambda: len(listener.received) == 1)
            assert it.metric("shop_broker_replies_total", trigger="shop/asks") == 1
    got = listener.received[0]
    assert (got.id, got.body, got.headers["content-type"]) == ("r1", b"hello", "text/plain")


async def test_an_endless_conversation_ends_with_its_ttl(tmp_path: Path) -> None:
    answers = [Answer(200, REPLY_HEADERS)] * 20
    async with (
        subscribed(*answers) as subscriber,
        running(tmp_path, broker(), trigger("t", subscriber.url)) as it,
    ):
        await it.post(knativebrokerttl="5")
        await until(lambda: it.metric("shop_broker_events_expired_total", broker="shop/default") == 1)
        assert it.metric("shop_broker_pending", trigger="shop/t") == 0
    assert len(subscriber.received) == 4


async def test_an_event_without_any_ttl_left_is_refused_and_counted(tmp_path: Path) -> None:
    async with running(tmp_path, broker()) as it:
        for ttl in ("1", "0", "-3"):
            answer = await it.post(knativebrokerttl=ttl)
            assert (answer.status_code, answer.json()["reason"]) == (400, "TTL_EXHAUSTED")
        assert it.metric("shop_broker_events_expired_total", broker="shop/default") == 3
        assert (await it.post(knativebrokerttl="many")).status_code == 202


@pytest.mark.parametrize("answer", [Answer(200, body=b"OK"), Answer(200, REPLY_HEADERS[:2])])
async def test_an_answer_that_is_no_event_is_a_failed_delivery_and_log_and_dead_letter_say_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    async with subscribed(answer, answer) as subscriber, subscribed() as sink:
        spec = {"retry": 1, "deadLetterSink": {"uri": sink.url}}
        async with running(tmp_path, broker(delivery=spec), trigger("t", subscriber.url)) as it:
            await it.post()
            await until(lambda: len(sink.received) == 1)
    assert len(subscriber.received) == 2
    got = sink.received[0]
    assert got.headers["ce-knativeerrorcode"] == "502"
    reason = base64.b64decode(got.headers["ce-knativeerrordata"]).decode()
    assert reason.startswith("the subscriber answered 200 with a body that is no ")
    assert "answer 204 without a body" in reason
    lines = [record.__dict__ for record in caplog.records if "delivery" in record.message]
    assert [(line["code"], line["reason"]) for line in lines] == [(502, reason)] * 2


async def test_a_trigger_may_ask_for_the_structured_mode(tmp_path: Path) -> None:
    async with subscribed() as subscriber:
        documents = broker(), trigger("t", subscriber.url, delivery={"format": "json"})
        async with running(tmp_path, *documents) as it:
            await it.post("7")
            await until(lambda: len(subscriber.received) == 1)
    got = subscriber.received[0]
    assert got.headers["content-type"].startswith("application/cloudevents+json")
    assert b'"data":{"a": 1}' in got.body


def policy(**more: Any) -> DeliverySpec:
    return DeliverySpec(**{"retry": 5, "backoff_delay": 0.5, **more})


def test_exponential_backoff_doubles_and_linear_grows_from_nothing_as_upstream() -> None:
    assert [rules.delay(policy(), n, 0) for n in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]
    assert [rules.delay(policy(exponential=False), n, 0) for n in (1, 2, 3)] == [0.0, 0.5, 1.0]
    assert rules.delay(policy(), 10_000, 0) == 86400


def test_retry_after_prolongs_the_wait_up_to_its_bound() -> None:
    assert rules.delay(policy(), 1, 7) == 7
    assert rules.delay(policy(retry_after_max=3), 1, 7) == 3
    assert rules.delay(policy(retry_after_max=0), 1, 7) == 0.5
    assert rules.delay(policy(), 5, 2) == 8


def test_a_dead_letter_sink_is_asked_at_least_once_a_minute() -> None:
    assert [rules.dead_letter_delay(n) for n in (1, 2, 3, 100)] == [0.5, 1.0, 2.0, 60.0]


@pytest.mark.parametrize(
    ("status", "header", "outcome"),
    [
        (204, b"", Delivered()),
        (302, b"", Failed(302, b"", retryable=False)),
        (403, b"", Failed(403, b"", retryable=False)),
        (503, b"5", Failed(503, b"", retry_after=5.0)),
        (429, b"Thu, 01 Jan 1970 00:00:10 GMT", Failed(429, b"", retry_after=10.0)),
        (503, b"soon", Failed(503, b"")),
        (500, b"5", Failed(500, b"")),
    ],
)
def test_an_answer_is_judged_by_status_and_retry_after(status: int, header: bytes, outcome: Delivered | Failed) -> None:
    assert rules.judge(Response(status, ((b"retry-after", header),), b""), now=0) == outcome
