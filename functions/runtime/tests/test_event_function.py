"""The event function over HTTP, as a broker sees it."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from io import BytesIO
from typing import Any

import aiohttp
import httpx
import msgspec
import pytest
from starlette.requests import Request

from events.catalog import StockReserved, SweepDue
from events.service_keys import PrivateKey
from functions.runtime.app import Function
from functions.runtime.clock import ManualClock
from functions.runtime.errors import invalid, not_found, unavailable
from functions.runtime.event_function import EventFunction
from functions.runtime.http_server import HttpServer, framework_app
from functions.runtime.inbox import InboxRecord
from functions.runtime.settings import RuntimeSettings
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import AlreadyDone
from functions.runtime.tests.support import KEYS, FakeVerifier, signed, signer, verifier
from observability import context, metrics
from observability.metrics_server import exposition

ORDER = "ord_" + "0" * 31 + "1"
EVENT = {
    "ce-specversion": "1.0",
    "ce-id": "e1",
    "ce-source": "/products",
    "ce-type": StockReserved.TYPE,
    "ce-subject": ORDER,
    "ce-time": "2030-01-01T00:00:00Z",
    "ce-correlationid": "correlation-1234",
    "ce-traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-00",
    "content-type": "application/json",
}
DATA = f'{{"order_id": "{ORDER}", "expires_at": "2030-01-01T00:00:00Z"}}'


def structured(**more: Any) -> str:
    """EVENT in structured mode, its data written as another broker might."""
    headers = signed(EVENT | {"ce-id": "e2"}, msgspec.json.encode(json.loads(DATA)))
    event = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    return json.dumps({**event, "data": json.loads(DATA), **more}, indent=1)


class EventServer:
    """A function with one subscription that does what it is told."""

    def __init__(self) -> None:
        self.raises: Exception | None = None
        self.seen: list[tuple[Any, InboxRecord, context.Context]] = []
        self.sweeps: list[str] = []
        clock = self.clock = ManualClock()
        self.function = Function(
            "orders",
            RuntimeSettings(),
            MemoryStore((), clock),
            services=tuple,
            subscriptions={StockReserved: self.handle, SweepDue: self.sweep_domain},
            verifier=FakeVerifier(),
            clock=clock,
            signer=signer("orders"),
            signatures=verifier(),
        )
        self.server = HttpServer(self.function, self.check, self.sweep_runtime, exposition, events=True)
        self.is_ready = True
        self.url = ""

    async def handle(self, event: Any, inbox: InboxRecord) -> None:
        self.seen.append((event, inbox, context.current()))
        if self.raises is not None:
            raise self.raises

    async def sweep_runtime(self) -> None:
        self.sweeps.append("runtime")

    async def sweep_domain(self, _: SweepDue, __: InboxRecord) -> None:
        self.sweeps.append("domain")

    async def check(self) -> None:
        if not self.is_ready:
            raise RuntimeError

    async def post(
        self, headers: dict[str, str] | None = None, data: str | bytes = DATA, path: str = "/"
    ) -> tuple[int, bytes, dict[str, str]]:
        """Signed by its source, where that is one and does not sign already."""
        headers, raw = headers or EVENT, data.encode() if isinstance(data, str) else data
        if headers.get("ce-source") == "/products" and "ce-signature" not in headers:
            headers = signed(headers, raw)
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, data=BytesIO(raw), headers=headers) as answer,
        ):
            return answer.status, await answer.read(), dict(answer.headers)

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def event_server() -> AsyncIterator[EventServer]:
    event_server = EventServer()
    event_server.url = f"http://127.0.0.1:{await event_server.server.start('127.0.0.1', 0)}"
    yield event_server
    await event_server.server.stop(1)


async def test_the_log_names_whom_the_event_is_about(
    event_server: EventServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert (await event_server.post())[0] == 204
        assert (await event_server.post({name: EVENT[name] for name in EVENT if name != "ce-subject"}))[0] == 422
    lines = [record.__dict__ for record in caplog.records if record.message == "event"]
    assert [line.get("subject") for line in lines] == [ORDER, None]


async def test_an_event_in_binary_mode_is_handled_with_its_context(event_server: EventServer) -> None:
    status, body, _ = await event_server.post()

    event, inbox, ctx = event_server.seen[0]
    assert (status, body) == (204, b"")
    assert (event.order_id, inbox.event_id, inbox.source) == (ORDER, "e1", "/products")
    assert (ctx.correlation_id, ctx.trace_id) == ("correlation-1234", "a" * 32)


async def test_an_event_whose_data_a_foreign_server_lost_is_refused(event_server: EventServer) -> None:
    async def nothing() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(name.encode(), value.encode()) for name, value in EVENT.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [*headers, (b"content-length", b"5")]}
    answer = await EventFunction(event_server.function, event_server.sweep_runtime)(Request(scope, nothing))
    assert answer.status_code == 400
    assert b"EVENT_INCOMPLETE" in answer.body
    assert event_server.seen == []


async def test_the_request_s_trace_is_continued_whatever_its_version_and_lines(
    event_server: EventServer,
) -> None:
    lines = [("traceparent", f"cc-{'c' * 32}-{'d' * 16}-01-x"), ("tracestate", "a=1"), ("tracestate", "b=2")]
    async with httpx.AsyncClient() as client:
        sent = signed(EVENT, DATA.encode())
        answer = await client.post(event_server.url, headers=[*sent.items(), *lines], content=DATA)
    assert answer.status_code == 204
    ctx = event_server.seen[0][2]
    assert (ctx.trace_id, ctx.tracestate) == ("c" * 32, "a=1, b=2")


@pytest.mark.parametrize("name", ["ce-id", "ce-source", "content-type"])
async def test_an_attribute_must_not_come_twice(event_server: EventServer, name: str) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.post(event_server.url, headers=[(name, "other"), *EVENT.items()], content=DATA)
    assert answer.status_code == 400
    assert event_server.seen == []


async def test_an_event_in_structured_mode_is_handled(event_server: EventServer) -> None:
    status, _, _ = await event_server.post({"content-type": "application/cloudevents+json"}, structured())

    assert (status, event_server.seen[0][1].event_id) == (204, "e2")


async def test_an_event_that_was_handled_before_is_acknowledged(event_server: EventServer) -> None:
    event_server.raises = AlreadyDone()

    assert (await event_server.post())[:2] == (204, b"")


async def test_the_mark_names_source_and_id(event_server: EventServer) -> None:
    await event_server.post()
    await event_server.post(EVENT | {"ce-id": "e2"})

    assert [inbox.key for _, inbox, _ in event_server.seen] == [
        "inbox:/products:e1",
        "inbox:/products:e2",
    ]


async def test_an_event_from_somebody_who_does_not_send_such_is_refused(event_server: EventServer) -> None:
    status, body, _ = await event_server.post(EVENT | {"ce-source": "/other"})

    assert (status, event_server.seen) == (400, [])
    assert b"EVENT_SOURCE_UNKNOWN" in body


async def test_a_correlation_id_that_is_no_text_is_made_anew(event_server: EventServer) -> None:
    event = structured(correlationid=12345678)
    status, _, _ = await event_server.post({"content-type": "application/cloudevents+json"}, event)

    assert (status, event_server.seen[0][2].correlation_id.isalnum()) == (204, True)


REFUSED: list[tuple[dict[str, str], str | bytes, int, str]] = [
    ({"content-type": "text/plain"}, "hello", 400, "EVENT_MALFORMED"),
    ({key: EVENT[key] for key in EVENT if key != "ce-id"}, DATA, 400, "EVENT_MALFORMED"),
    ({"content-type": "application/cloudevents+json"}, "{", 400, "EVENT_MALFORMED"),
    ({"content-type": "application/cloudevents+json"}, b"\xff\xfe", 400, "EVENT_MALFORMED"),
    ({"content-type": "application/cloudevents+json"}, "[1]", 400, "EVENT_MALFORMED"),
    ({"content-type": "application/cloudevents+json"}, "[" * 100_000, 400, "EVENT_MALFORMED"),
    (
        {"content-type": "application/cloudevents+json"},
        '{"specversion":"1.0","id":"1","source":"/","type":["t"]}',
        400,
        "EVENT_MALFORMED",
    ),
    (EVENT | {"ce-time": "2030-01-01T00:00:00"}, DATA, 400, "EVENT_MALFORMED"),
    (
        {"content-type": "application/cloudevents-batch+json"},
        f"[{structured()}, {structured()}]",
        400,
        "EVENT_MALFORMED",
    ),
    (EVENT | {"ce-type": "shop.unknown.v1"}, DATA, 400, "EVENT_TYPE_UNKNOWN"),
    (EVENT, "{", 422, "EVENT_DATA_INVALID"),
    (EVENT, '{"more": ' + "[" * 100_000, 422, "EVENT_DATA_INVALID"),
    (EVENT, '{"order_id": "42"}', 422, "EVENT_DATA_INVALID"),
    (EVENT, "x" * (1024 * 1024 + 1), 413, "EVENT_TOO_LARGE"),
]


@pytest.mark.parametrize(("headers", "data", "status", "reason"), REFUSED)
async def test_what_is_no_event_for_us_is_refused_for_good(
    event_server: EventServer, headers: dict[str, str], data: str | bytes, status: int, reason: str
) -> None:
    answered, body, _ = await event_server.post(headers, data)

    assert answered == status
    assert reason in body.decode()
    assert event_server.seen == []


async def test_another_path_takes_no_events(event_server: EventServer) -> None:
    assert (await event_server.post(path="/other"))[0] == 400


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (unavailable("DOWN", "down", retry_after=7), 503),
        (not_found("Order", "ORDER_NOT_FOUND"), 422),
        (invalid("no"), 400),
        (KeyError("a bug"), 500),
    ],
)
async def test_the_status_tells_the_broker_whether_to_redeliver(
    event_server: EventServer, error: Exception, status: int
) -> None:
    event_server.raises = error
    answered, body, headers = await event_server.post()

    assert answered == status
    assert headers.get("Retry-After") == ("7" if status == 503 else None)
    assert b"a bug" not in body


async def test_a_ping_sweeps_what_all_share_and_then_what_the_domain_adds(event_server: EventServer) -> None:
    ping = {"ce-type": SweepDue.TYPE, "ce-source": SweepDue.SOURCE}
    status, _, _ = await event_server.post(EVENT | ping, "{}")

    assert (status, event_server.sweeps) == (204, ["runtime", "domain"])


async def test_probes_tell_alive_from_ready(event_server: EventServer) -> None:
    event_server.is_ready = False

    assert (await event_server.get("/healthz/live"))[0] == 200
    assert (await event_server.get("/healthz/ready"))[0] == 503


async def test_metrics_count_what_was_handled(event_server: EventServer) -> None:
    await event_server.post()
    status, text = await event_server.get("/metrics")

    assert status == 200
    assert (
        f'shop_event_handling_seconds_count{{outcome="handled",service="orders",type="{StockReserved.TYPE}"}}' in text
    )


async def test_a_handler_that_takes_longer_than_the_broker_waits_is_broken_off_and_redelivered(
    event_server: EventServer,
) -> None:
    broken_off = asyncio.Event()

    async def hang(_: Any, __: InboxRecord) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            broken_off.set()

    event_server.function.subscriptions = {StockReserved: hang}
    app = framework_app(EventFunction(event_server.function, event_server.sweep_runtime, seconds=0.05))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://function") as client:
        answer = await client.post("/", headers=signed(EVENT, DATA.encode()), content=DATA)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["reason"] == "EVENT_TIMEOUT"
    assert broken_off.is_set()


def tampered(**changed: str) -> dict[str, str]:
    """The headers of EVENT, changed after it was signed."""
    return signed(EVENT, DATA.encode()) | {f"ce-{name}": value for name, value in changed.items()}


FORGED: dict[str, tuple[dict[str, str], str, str]] = {
    "not signed": (EVENT | {"ce-signature": ""}, DATA, "EVENT_UNSIGNED"),
    "a signature that is none": (tampered(signature="..."), DATA, "EVENT_SIGNATURE_INVALID"),
    "half a signature": (
        tampered(signature=tampered()["ce-signature"][:-40]),
        DATA,
        "EVENT_SIGNATURE_INVALID",
    ),
    "another id": (tampered(id="e9"), DATA, "EVENT_SIGNATURE_INVALID"),
    "another subject": (tampered(subject="ord_" + "0" * 31 + "2"), DATA, "EVENT_SIGNATURE_INVALID"),
    "another time": (tampered(time="2031-01-01T00:00:00Z"), DATA, "EVENT_SIGNATURE_INVALID"),
    "another schema": (tampered(dataschema="urn:shop:other"), DATA, "EVENT_SIGNATURE_INVALID"),
    "other data": (tampered(), DATA.replace("2030", "2031"), "EVENT_SIGNATURE_INVALID"),
    "signed by another service": (signed(EVENT, DATA.encode(), KEYS["users"]), DATA, "EVENT_SIGNER_WRONG"),
    "signed by a stranger under that name": (
        signed(EVENT, DATA.encode(), PrivateKey.generate("products")),
        DATA,
        "EVENT_SIGNATURE_INVALID",
    ),
    "the signature of another event": (
        EVENT | {"ce-signature": signed(EVENT | {"ce-id": "e9"}, DATA.encode())["ce-signature"]},
        DATA,
        "EVENT_SIGNATURE_INVALID",
    ),
}


@pytest.mark.parametrize("forgery", FORGED)
async def test_an_event_that_its_source_did_not_sign_is_refused_for_good_and_counted(
    event_server: EventServer, forgery: str
) -> None:
    headers, data, reason = FORGED[forgery]
    counter = metrics.FORGED.labels("orders", reason)
    before = counter._value.get()
    status, body, _ = await event_server.post(headers, data)
    assert (status, json.loads(body)["reason"]) == (403, reason)
    assert event_server.seen == []
    assert counter._value.get() == before + 1


async def test_an_event_about_another_subject_than_its_data_is_refused_though_its_source_signed_it(
    event_server: EventServer,
) -> None:
    status, body, _ = await event_server.post(EVENT | {"ce-subject": "ord_" + "0" * 31 + "2"})
    assert (status, json.loads(body)["reason"]) == (422, "EVENT_SUBJECT_WRONG")


async def test_what_brokers_add_and_rewrite_leaves_the_signature_good(event_server: EventServer) -> None:
    event = signed(EVENT | {"ce-time": "2030-01-01T00:00:00.120000Z"}, DATA.encode())
    for changed in (
        {"ce-time": "2030-01-01T00:00:00.12Z"},
        {"ce-time": "2030-01-01T01:00:00.12+01:00"},
        {
            "ce-knativearrivaltime": "2030-01-01T00:00:01Z",
            "ce-knativebrokerttl": "254",
            "ce-partitionkey": "x",
        },
        {"ce-traceparent": "00-" + "c" * 32 + "-" + "d" * 16 + "-01", "ce-correlationid": "another-one"},
        {"content-type": "application/json; charset=utf-8"},
    ):
        assert (await event_server.post(event | changed))[0] == 204, changed


async def test_while_publishers_of_before_are_there_unsigned_events_may_be_taken_but_no_forged_ones(
    event_server: EventServer,
) -> None:
    event_server.function.signatures = verifier(required=False)
    app = framework_app(EventFunction(event_server.function, event_server.sweep_runtime))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://function") as client:
        answers = [
            (await client.post("/", headers=headers, content=DATA)).status_code
            for headers in (EVENT, tampered(), tampered(id="e9"))
        ]
    assert answers == [204, 204, 403]


async def test_ticks_that_anybody_may_send_start_no_more_than_so_many_sweeps(
    event_server: EventServer,
) -> None:
    ping = EVENT | {"ce-type": SweepDue.TYPE, "ce-source": "/evil"}
    answers = [(await event_server.post(ping | {"ce-id": str(number)}, "{}"))[0] for number in range(40)]
    assert set(answers) == {204}
    assert event_server.sweeps.count("domain") == 20
    event_server.clock.advance(timedelta(seconds=30))
    await event_server.post(ping, "{}")
    assert event_server.sweeps.count("domain") == 21
