"""The dead-letter sink inside the broker's process."""

from __future__ import annotations

from pathlib import Path

from events.tests.support import Answer, free_port, subscribed, until
from knative.local.broker.tests.support import broker, running, trigger


async def test_inside_the_broker_a_given_up_event_can_be_replayed_to_its_subscriber(tmp_path: Path) -> None:
    port = free_port()
    async with subscribed(Answer(422, body=b"not yet")) as subscriber:
        spec = {"retry": 0, "deadLetterSink": {"uri": f"http://127.0.0.1:{port}/dead-letters/"}}
        async with running(tmp_path, broker(delivery=spec), trigger("t", subscriber.url), port=port) as it:
            await it.post("1")
            await until(lambda: it.metric("shop_dead_letters", status="pending") == 1)
            (entry,) = (await it.http.get("/dead-letters/entries")).json()["items"]
            assert (entry["trigger"], entry["error"], entry["attempts"]) == ("shop/t", "not yet", 1)
            answer = await it.http.post("/dead-letters/replay")
            assert answer.json() == {"replayed": 1, "failed": 0}
            await until(lambda: len(subscriber.received) == 2)
            assert it.metric("shop_dead_letters", status="pending") == 0
    assert subscriber.ids == ["1", "1"]
