"""The dead-letter sink as an ASGI application: POST / stores an event; other routes list, replay and discard entries.

POST / needs no token, since brokers have none; neither do the health checks and /metrics. All other routes are for
authenticated `callers` only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from events.asgi import (
    Problem,
    Receive,
    Scope,
    Send,
    header,
    method_not_allowed,
    query,
    read_body,
    respond,
    respond_json,
    respond_problem,
)
from events.cloudevent import BadEvent, CloudEvent, parse
from events.dead_letters import wire
from events.dead_letters.store import STATUSES, Entry, Store
from events.service_tokens import Callers, NotAllowed, NotAuthenticated
from events.sqlite_group_commit import StorageError
from observability import context, metrics
from observability.failpoints import failpoints

log = logging.getLogger("shop.deadletters")

Replay = Callable[[CloudEvent, str | None], Awaitable[None]]
"""Publishes an event again, to a broker (namespace/name; None if unknown). Raises ReplayFailed."""

_ENTRY: Final = re.compile(r"/entries/(dlq_[0-9a-f]{32})(/replay)?")
_MAX_LIMIT: Final = 100
_REPLAYED_KEPT: Final = 7 * 86400.0  # seconds; inboxes keep their records for as long
_FORGET_EVERY: Final = 3600.0
_UNKNOWN: Final = "unknown"
_OURS: Final = frozenset(
    {"knativeerrordest", "knativeerrorcode", "knativeerrordata", "knativebrokerttl", "knativearrivaltime"}
)


class ReplayFailed(Exception):
    """The broker did not accept the event; the entry stays unchanged."""


class DeadLetters:
    """The ASGI application; call `start` on the loop that serves it.

    `data_dir` contains `deadletters.db`; `clock` returns Unix time. Without `callers`, every request to read, replay or
    discard entries is refused. Dead letters are counted by trigger, for the `triggers` (namespace/name); those of any
    other trigger count as `unknown`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        replay: Replay,
        registry: CollectorRegistry,
        triggers: Iterable[str] = (),
        callers: Callers | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._data_dir = data_dir
        self._callers = callers
        self._replay = replay
        self._clock = clock
        self._registry = registry
        self._store: Store | None = None
        self._busy: set[str] = set()
        kept = Counter("shop_dead_letters_received", "Dead letters taken in.", ["trigger"], registry=registry)
        # All labels exist from the start, so that Prometheus sees the first increase.
        self._kept = {trigger: kept.labels(trigger) for trigger in (*triggers, _UNKNOWN)}
        self._replays = Counter("shop_dead_letters_replayed", "Replays.", ["result"], registry=registry)
        gauge = Gauge("shop_dead_letters", "Dead letters kept.", ["status"], registry=registry)
        for status in STATUSES:
            gauge.labels(status).set_function(partial(self._count, status))

    async def start(self) -> None:
        """Open the store. Raises StorageError."""
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._store = Store(self._data_dir / "deadletters.db")
        self._forgetting = asyncio.create_task(self._forget())

    async def stop(self) -> None:
        """Close the store; later requests get 503."""
        store, self._store = self._store, None
        if store is not None:
            self._forgetting.cancel()
            await store.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request (ASGI)."""
        correlation = header(scope, b"x-correlation-id") or header(scope, b"ce-correlationid")
        context.enter(context.incoming(correlation, header(scope, b"traceparent"), header(scope, b"tracestate")))
        try:
            await self._route(scope, receive, send)
        except Problem as problem:
            await respond_problem(send, problem)
        except StorageError:
            await respond_problem(send, Problem(503, "STORAGE", "it cannot be kept now"))

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path == "/":
            _only(method, "POST")
            query(scope)
            await self._take(scope, receive, send)
        elif path in ("/healthz/live", "/healthz/ready", "/metrics"):
            _only(method, "GET", "HEAD")
            await self._observe(path, scope, send)
        else:
            await self._manage(path, method, scope, send)

    async def _manage(self, path: str, method: str, scope: Scope, send: Send) -> None:
        """Serve the routes that need a token."""
        self._authenticate(scope)
        entry = _ENTRY.fullmatch(path)
        if path == "/entries":
            _only(method, "GET", "DELETE")
            if method == "GET":
                page = self._page(query(scope, "limit", "cursor", "type", "status"))
                await respond_json(send, 200, page)
            else:
                await respond_json(send, 200, await self._discard(query(scope, "type", "status", "all")))
        elif path == "/replay":
            _only(method, "POST")
            await respond_json(send, 200, await self._replay_all(query(scope, "type").get("type")))
        elif entry is not None:
            query(scope)
            await self._one(entry[1], entry[2] is not None, method, send)
        else:
            raise Problem(404, "NOT_FOUND", "there is nothing here")

    def _authenticate(self, scope: Scope) -> None:
        """Raise Problem (401, 403) unless the caller is a service that may manage dead letters."""
        try:
            if self._callers is None:
                raise NotAuthenticated("The sink has no SERVICE_KEYS to know its callers by.")
            self._callers.check(header(scope, b"authorization"))
        except NotAuthenticated as error:
            challenge = ((b"www-authenticate", b"Bearer"),)
            raise Problem(401, "TOKEN_INVALID", str(error), challenge) from None
        except NotAllowed as error:
            raise Problem(403, "PERMISSION_DENIED", str(error)) from None

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            events = parse(scope["headers"], await read_body(receive))
        except BadEvent as error:
            raise Problem(400, error.reason, str(error)) from None
        origins = [wire.origin(scope, event) for event in events]
        store, now = self._opened(), self._clock()
        with failpoints("deadletters.keep"):
            puts = (store.put(event, origin, now) for event, origin in zip(events, origins, strict=True))
            keys = await asyncio.gather(*puts)
        for event, origin, key in zip(events, origins, keys, strict=True):
            self._kept.get(origin.trigger or _UNKNOWN, self._kept[_UNKNOWN]).inc()
            fields = {"entry": key, "event_id": event.id, "event_type": event.type, "trigger": origin.trigger}
            log.warning("dead letter kept", extra=fields)
        with failpoints("deadletters.acknowledge"):
            await respond(send, 204)

    async def _one(self, key: str, replay: bool, method: str, send: Send) -> None:
        _only(method, *(("POST",) if replay else ("GET", "DELETE")))
        entry = self._opened().get(key)
        if entry is None:
            raise Problem(404, "NOT_FOUND", "no such dead letter")
        if method == "GET":
            await respond_json(send, 200, wire.whole(entry))
        elif method == "DELETE":
            await self._opened().remove(key)
            await respond(send, 204)
        else:
            await self._replay_one(entry)
            await respond_json(send, 200, wire.brief(self._opened().get(key) or entry))

    async def _replay_one(self, entry: Entry) -> None:
        """Publish the original event again, with the same id and source, so that inboxes can detect duplicates."""
        if entry.id in self._busy:
            raise Problem(409, "REPLAY_IN_PROGRESS", "it is being replayed right now")
        kept = {name: value for name, value in entry.event.attributes.items() if name not in _OURS}
        self._busy.add(entry.id)
        try:
            with failpoints("deadletters.replay"):
                await self._replay(CloudEvent(kept, entry.event.data), entry.broker)
            with failpoints("deadletters.mark"):
                await self._opened().replayed(entry, self._clock())
        except ReplayFailed as error:
            self._replays.labels("failed").inc()
            raise Problem(502, "BROKER_UNAVAILABLE", f"the broker did not take it: {error}") from None
        finally:
            self._busy.discard(entry.id)
        self._replays.labels("replayed").inc()
        log.info("dead letter replayed", extra={"entry": entry.id, "event_id": entry.event.id})

    async def _replay_all(self, event_type: str | None) -> dict[str, int]:
        """Replay all current pending entries, the newest first, and continue after a failed replay.

        Returns the numbers of replayed and failed entries. An `event_type` of None stands for all types.
        """
        counts = {"replayed": 0, "failed": 0}
        before = 2**62
        while page := self._opened().page("pending", wire.checked_type(event_type), before, _MAX_LIMIT):
            before = page[-1].seq
            for entry in page:
                try:
                    await self._replay_one(entry)
                    counts["replayed"] += 1
                except Problem:
                    counts["failed"] += 1
        return counts

    async def _discard(self, asked: Mapping[str, str]) -> dict[str, int]:
        """Delete all current entries that have the status and the event type in the query `asked`.

        To delete those of all types, the query has `all=true` instead of a type. Raises Problem (400).
        """
        status, event_type = wire.checked_status(asked), wire.checked_type(asked.get("type"))
        if (asked.get("all") == "true") is (event_type is not None) or asked.get("all", "true") != "true":
            raise Problem(400, "FILTER_MISSING", "say which type, or all=true")
        discarded = await self._opened().discard(status, event_type)
        log.warning("dead letters discarded", extra={"count": discarded, "status": status, "type": event_type})
        return {"discarded": discarded}

    def _page(self, asked: Mapping[str, str]) -> dict[str, Any]:
        limit = asked.get("limit", "20")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= _MAX_LIMIT:
            raise Problem(400, "INVALID_LIMIT", f"limit is a number from 1 to {_MAX_LIMIT}")
        status = wire.checked_status(asked)
        before = wire.decode_cursor(asked["cursor"]) if asked.get("cursor") else 2**62
        size = int(limit)
        found = self._opened().page(status, wire.checked_type(asked.get("type")), before, size + 1)
        more = len(found) > size
        return {
            "items": [wire.brief(entry) for entry in found[:size]],
            "next_cursor": wire.encode_cursor(found[size - 1].seq) if more else None,
        }

    async def _observe(self, path: str, scope: Scope, send: Send) -> None:
        if path == "/metrics":
            body, content_type = metrics.exposition(header(scope, b"accept"), self._registry)
            await respond(send, 200, body, content_type.encode())
            return
        try:
            if path == "/healthz/ready":
                self._opened().check()
        except sqlite3.Error:
            raise Problem(503, "NOT_READY", "the storage does not answer") from None
        await respond_json(send, 200, {"status": "ok"})

    def _opened(self) -> Store:
        if self._store is None:
            raise Problem(503, "NOT_READY", "starting or stopping", ((b"retry-after", b"1"),))
        return self._store

    async def _forget(self) -> None:
        """Delete, once an hour, entries that were replayed over a week ago and did not fail again."""
        while True:
            with contextlib.suppress(StorageError, Problem):
                await self._opened().forget(self._clock() - _REPLAYED_KEPT)
            await asyncio.sleep(_FORGET_EVERY)

    def _count(self, status: str) -> int:
        return self._store.counts()[status] if self._store is not None else 0


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise method_not_allowed(*allowed)
