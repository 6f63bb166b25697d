"""What nobody took is kept, shown page by page, and given back."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from events.cloudevent import CloudEvent
from events.dead_letters.app import DeadLetters
from events.dead_letters.tests.support import ERROR, sink
from events.http_server import serving
from events.service_keys import PrivateKey
from events.tests.support import (
    GATEWAY,
    KNOWN,
    OTHER,
    free_port,
    headers,
    ready,
    service_token,
    subscribed,
    until,
)

ROOT = Path(__file__).parents[3]


async def test_a_dead_letter_is_kept_whole_with_its_error_in_plain_words(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        await it.put("1", subject="ord_1", correlationid="c1")
        (entry,) = await it.entries()
        whole = (await it.http.get(f"/entries/{entry['id']}")).json()
    assert entry == {
        "id": entry["id"],
        "status": "pending",
        "type": "shop.order.placed.v1",
        "event_id": "1",
        "source": "/orders",
        "subject": "ord_1",
        "correlation_id": "c1",
        "trigger": "shop/t",
        "possible_triggers": [],
        "destination": "http://orders/",
        "error_code": 422,
        "error": "no such order",
        "failures": 1,
        "attempts": 6,
        "first_failed_at": "2023-11-14T22:13:20.000Z",
        "last_failed_at": "2023-11-14T22:13:20.000Z",
        "replayed_at": None,
    }
    assert whole["event"]["data"] == {"a": 1}
    assert whole["event"]["knativeerrorcode"] == "422"


async def test_the_same_event_for_the_same_destination_is_one_entry(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        await it.put("1")
        await it.put("1", knativeerrorcode="500")
        await it.put("1", knativeerrordest="http://payments/")
        found = await it.entries()
    assert [(entry["destination"], entry["failures"], entry["error_code"]) for entry in found] == [
        ("http://payments/", 1, 422),
        ("http://orders/", 2, 500),
    ]


async def test_entries_survive_a_restart(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        await it.put()
    async with sink(tmp_path) as it:
        assert len(await it.entries()) == 1


async def test_entries_come_in_pages_the_newest_first(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        for number in range(5):
            await it.put(str(number))
        seen: list[str] = []
        cursor = None
        for size in (2, 2, 1):
            page = (await it.http.get("/entries", params={"limit": 2, "cursor": cursor or ""})).json()
            cursor = page["next_cursor"]
            assert len(page["items"]) == size
            seen += [entry["event_id"] for entry in page["items"]]
    assert cursor is None
    assert seen == ["4", "3", "2", "1", "0"]


async def test_entries_can_be_asked_for_by_type(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        await it.put("1")
        await it.put("2", type="other")
        assert [entry["event_id"] for entry in await it.entries(type="other")] == ["2"]
        assert await it.entries(type="none") == []


async def test_a_replay_gives_the_original_event_back_and_marks_the_entry(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        await it.put("1", subject="ord_1")
        (entry,) = await it.entries()
        answer = await it.http.post(f"/entries/{entry['id']}/replay")
        assert (answer.status_code, answer.json()["status"]) == (200, "replayed")
        assert await it.entries() == []
        assert [found["id"] for found in await it.entries(status="replayed")] == [entry["id"]]
    ((event, to),) = it.replayed
    assert to == "shop/default"
    assert event.data == b'{"a": 1}'
    assert event.attributes == {
        "datacontenttype": "application/json",
        "id": "1",
        "source": "/orders",
        "type": "shop.order.placed.v1",
        "specversion": "1.0",
        "subject": "ord_1",
    }


async def test_an_entry_that_fails_again_after_its_replay_is_pending_again(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        await it.put()
        (entry,) = await it.entries()
        await it.http.post(f"/entries/{entry['id']}/replay")
        await it.put()
        (again,) = await it.entries()
    assert (again["id"], again["failures"], again["replayed_at"]) == (entry["id"], 2, None)


async def test_a_broker_that_refuses_leaves_the_entry_as_it_was(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        await it.put()
        it.refuse = True
        (entry,) = await it.entries()
        answer = await it.http.post(f"/entries/{entry['id']}/replay")
        problem(answer, 502, "BROKER_UNAVAILABLE")
        assert await it.entries() == [entry]
        assert (await it.http.post("/replay")).json() == {"replayed": 0, "failed": 1}


async def test_all_of_a_type_are_replayed_at_once(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        for number in range(120):
            await it.put(str(number), type="one" if number % 2 else "two")
        assert (await it.http.post("/replay", params={"type": "one"})).json() == {"replayed": 60, "failed": 0}
        assert (await it.http.post("/replay")).json() == {"replayed": 60, "failed": 0}
        assert await it.entries() == []


async def test_an_entry_can_be_deleted(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        await it.put()
        (entry,) = await it.entries()
        path = f"/entries/{entry['id']}"
        assert (await it.http.delete(path)).status_code == 204
        problem(await it.http.get(path), 404, "NOT_FOUND")
        problem(await it.http.delete(path), 404, "NOT_FOUND")
        problem(await it.http.post(f"{path}/replay"), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/entries?limit=0", 400, "INVALID_LIMIT"),
        ("GET", "/entries?limit=101", 400, "INVALID_LIMIT"),
        ("GET", "/entries?limit=ten", 400, "INVALID_LIMIT"),
        ("GET", "/entries?cursor=!", 400, "INVALID_CURSOR"),
        ("GET", "/entries?cursor=YWJj", 400, "INVALID_CURSOR"),
        ("GET", "/entries?type=a%0Ab", 400, "INVALID_TYPE"),
        ("GET", "/entries?status=lost", 400, "INVALID_STATUS"),
        ("GET", "/entries?page=2", 400, "INVALID_QUERY"),
        ("GET", "/entries?limit=1&limit=2", 400, "INVALID_QUERY"),
        ("POST", "/replay?event_type=a", 400, "INVALID_QUERY"),
        ("POST", "/?x=1", 400, "INVALID_QUERY"),
        ("GET", "/entries/dlq_00000000000000000000000000000000?x=1", 400, "INVALID_QUERY"),
        ("DELETE", "/entries/dlq_00000000000000000000000000000000?x=1", 400, "INVALID_QUERY"),
        ("POST", "/entries/dlq_00000000000000000000000000000000/replay?x=1", 400, "INVALID_QUERY"),
        ("GET", "/entries/1", 404, "NOT_FOUND"),
        ("GET", "/entries/dlq_..%2F..%2Fx", 404, "NOT_FOUND"),
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("PUT", "/entries", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/", 400, "MISSING_ATTRIBUTE"),
    ],
)
async def test_what_cannot_be_answered_is_a_problem(
    tmp_path: Path, method: str, path: str, status: int, reason: str
) -> None:
    async with sink(tmp_path) as it:
        problem(await it.http.request(method, path), status, reason)


async def test_health_and_metrics_are_served(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        await it.put()
        assert (await it.http.get("/healthz/live")).status_code == 200
        assert (await it.http.get("/healthz/ready")).status_code == 200
        assert 'shop_dead_letters{status="pending"} 1.0' in (await it.http.get("/metrics")).text


async def test_it_runs_as_a_process_of_its_own_and_replays_to_the_brokers_address(tmp_path: Path) -> None:
    port = free_port()
    async with subscribed() as target, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        http.headers["authorization"] = f"Bearer {service_token()}"
        environment = {
            "SERVICE_KEYS": KNOWN.jwks(),
            "PORT": str(port),
            "STORE_URL": f"sqlite:///{tmp_path}",
            "BROKER_URL": f"{target.url}/shop/default",
        }
        child = subprocess.Popen([sys.executable, "-m", "events.dead_letters"], env=environment, cwd=ROOT)  # noqa: ASYNC220 - quick
        try:
            await ready(http)
            await http.post("/", headers=headers("9", **ERROR), content=b"{}")
            assert (await http.post("/replay")).json() == {"replayed": 1, "failed": 0}
            child.send_signal(signal.SIGTERM)
            await until(lambda: child.poll() is not None)
        finally:
            child.kill()
            child.wait()
    assert child.returncode == 0
    assert (target.received[0].path, target.ids) == ("/shop/default", ["9"])
    assert "ce-knativeerrorcode" not in target.received[0].headers


PATHS = [
    ("GET", "/entries"),
    ("DELETE", "/entries?all=true"),
    ("POST", "/replay"),
    ("GET", "/entries/{id}"),
    ("DELETE", "/entries/{id}"),
    ("POST", "/entries/{id}/replay"),
    ("GET", "/nothing"),
]
STRANGERS: dict[str, Callable[[], str]] = {
    "nobody": lambda: "",
    "another scheme": lambda: f"Basic {service_token()}",
    "no token": lambda: "Bearer x.y.z",
    "a long token": lambda: f"Bearer {'x' * 100_000}",
    "an unknown key": lambda: f"Bearer {service_token(PrivateKey.generate('gateway'))}",
    "another service in the gateway's name": lambda: f"Bearer {service_token(OTHER)}",
    "a foreign key under the gateway's id": lambda: (
        f"Bearer {service_token(PrivateKey.generate('gateway'), kid=GATEWAY.key_id)}"
    ),
    "a token for another service": lambda: f"Bearer {service_token(aud='orders')}",
    "a token of another platform": lambda: f"Bearer {service_token(iss='https://evil.test')}",
    "an old token": lambda: f"Bearer {service_token(exp=1)}",
    "a token from the future": lambda: f"Bearer {service_token(iat=time.time() + 3600)}",
    "times that are none": lambda: f"Bearer {service_token(iat='now')}",
    "a person's token": lambda: f"Bearer {service_token(typ='access')}",
}


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_who_is_not_the_gateway_reads_replays_and_discards_nothing(tmp_path: Path, stranger: str) -> None:
    async with sink(tmp_path) as it:
        await it.put()
        before = await it.entries()
        shown = {"authorization": STRANGERS[stranger]()}
        for method, path in PATHS:
            answer = await it.http.request(method, path.format(id=before[0]["id"]), headers=shown)
            problem(answer, 401, "TOKEN_INVALID")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert await it.entries() == before
    assert it.replayed == []


async def test_another_service_is_known_and_may_not(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        shown = {"authorization": f"Bearer {service_token(OTHER, sub='orders')}"}
        problem(await it.http.get("/entries", headers=shown), 403, "PERMISSION_DENIED")


async def test_without_keys_the_sink_keeps_what_comes_and_shows_it_to_nobody(tmp_path: Path) -> None:
    async def refuse(event: CloudEvent, to: str | None) -> None:
        raise AssertionError

    app = DeadLetters(tmp_path, replay=refuse, registry=CollectorRegistry())
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.post("/", headers=headers("1", **ERROR), content=b"{}")).status_code == 204
        problem(await http.get("/entries"), 401, "TOKEN_INVALID")
        assert (await http.get("/healthz/ready")).status_code == 200


def problem(answer: httpx.Response, status: int, reason: str) -> None:
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (answer.status_code, document["status"], document["reason"]) == (status, status, reason)
