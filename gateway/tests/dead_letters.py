"""A fake of the dead-letter sink's HTTP interface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from gateway.tests.fakes import HEX

LETTER = f"dlq_{HEX}"
_BRIEF: dict[str, Any] = {
    "id": LETTER,
    "status": "pending",
    "type": "shop.order.placed.v1",
    "event_id": "0190b5a4-c1de-7c0f-8a31-d94e5b7c2f60",
    "source": "/orders",
    "subject": None,
    "correlation_id": None,
    "trigger": "products-events",
    "possible_triggers": [],
    "destination": None,
    "error_code": 503,
    "error": "unavailable",
    "failures": 1,
    "attempts": 6,
    "first_failed_at": "2030-01-01T12:00:00.000Z",
    "last_failed_at": "2030-01-01T12:00:00.000Z",
    "replayed_at": None,
}


@asynccontextmanager
async def fake_dead_letters() -> AsyncIterator[str]:
    """Serve one dead letter under a prefix, and yield the URL."""
    app = web.Application()
    app.router.add_get("/dead-letters/entries", _page)
    app.router.add_delete("/dead-letters/entries", _discard)
    app.router.add_post("/dead-letters/replay", _replay)
    app.router.add_get("/dead-letters/entries/{id}", _one)
    app.router.add_delete("/dead-letters/entries/{id}", _one)
    app.router.add_post("/dead-letters/entries/{id}/replay", _one)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield f"http://127.0.0.1:{port}/dead-letters"
    await runner.cleanup()


async def _page(request: web.Request) -> web.Response:
    wanted = request.query.get("type", _BRIEF["type"])
    items = [_BRIEF] if wanted == _BRIEF["type"] else []
    return web.json_response({"items": items, "next_cursor": None})


async def _discard(request: web.Request) -> web.Response:
    if ("type" in request.query) is (request.query.get("all") == "true"):
        return web.json_response({"reason": "FILTER_MISSING"}, status=400)
    wanted = request.query.get("type", _BRIEF["type"])
    kept = request.query.get("status") == "replayed" or wanted != _BRIEF["type"]
    return web.json_response({"discarded": 0 if kept else 1})


async def _replay(_: web.Request) -> web.Response:
    return web.json_response({"replayed": 1, "failed": 0})


async def _one(request: web.Request) -> web.Response:
    if request.match_info["id"] != LETTER:
        return web.json_response({"reason": "NOT_FOUND"}, status=404)
    if request.method == "DELETE":
        return web.Response(status=204)
    event = {} if request.path.endswith("/replay") else {"event": {"specversion": "1.0"}}
    return web.json_response({**_BRIEF, **event})
