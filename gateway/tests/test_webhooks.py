"""Webhooks go through as they came, to the byte, and no further than they may."""

from __future__ import annotations

import httpx
import pytest

from functions.runtime.errors import ServiceError, invalid, not_found, unauthenticated, unavailable
from gateway.routes.webhooks import MAX_BYTES
from gateway.tests.conftest import assert_problem
from gateway.tests.fakes import Backend

BODY = b'{ "id":"evt_1",\n  "\\u00fc": 1.0, "data": "\xc3\xbc" }'
JSON = {"content-type": "application/json; charset=utf-8"}


async def test_stripes_events_reach_payments_byte_by_byte(api: httpx.AsyncClient, backend: Backend) -> None:
    headers = {**JSON, "stripe-signature": "t=1,v1=abc", "authorization": "Bearer nobody's"}
    answer = await api.post("/v1/webhooks/stripe", content=BODY, headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    asked = backend.last("ReceiveWebhook")
    assert (asked.payload, asked.signature) == (BODY, "t=1,v1=abc")
    assert "authorization" not in backend.metadata[-1]


async def test_mail_events_reach_notifications_byte_by_byte(api: httpx.AsyncClient, backend: Backend) -> None:
    answer = await api.post("/v1/webhooks/ses", content=BODY, headers={**JSON, "x-api-key": "opensesame"})
    assert answer.status_code == 204
    asked = backend.last("ReceiveMailEvent")
    assert (asked.payload, asked.secret) == (BODY, "opensesame")


@pytest.mark.parametrize(
    ("path", "rpc", "error", "status"),
    [
        ("stripe", "ReceiveWebhook", invalid("No.", reason="SIGNATURE_INVALID"), 400),
        ("stripe", "ReceiveWebhook", not_found("Webhook", "WEBHOOK_NOT_FOUND"), 404),
        ("stripe", "ReceiveWebhook", unavailable("PAYMENT_PROVIDER_UNAVAILABLE", "Later.", 7.0), 503),
        ("ses", "ReceiveMailEvent", unauthenticated("SECRET_INVALID", "No."), 401),
    ],
)
async def test_refusals_are_problems(
    api: httpx.AsyncClient, backend: Backend, path: str, rpc: str, error: ServiceError, status: int
) -> None:
    backend.fails[rpc] = error
    answer = await api.post(f"/v1/webhooks/{path}", content=BODY, headers=JSON)
    assert_problem(answer, status, error.reason)
    if status == 503:
        assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("path", ["stripe", "ses"])
@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b'"' + b"x" * MAX_BYTES + b'"', 413, "BODY_TOO_LARGE"),
        (b"x" * 2_000_000, 413, "BODY_TOO_LARGE"),
        (b"gibberish", 400, "MALFORMED_JSON"),
    ],
)
async def test_what_no_provider_sends_stays_outside(
    api: httpx.AsyncClient, backend: Backend, path: str, body: bytes, status: int, reason: str
) -> None:
    answer = await api.post(f"/v1/webhooks/{path}", content=body, headers=JSON)
    assert_problem(answer, status, reason)
    assert backend.calls == []
