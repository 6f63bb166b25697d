"""The broker as one ASGI application: ingress, health, metrics, and the dead-letter sink."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

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
from events.dead_letters.app import DeadLetters, ReplayFailed
from events.http_client import HttpClient
from events.service_tokens import Callers
from events.sqlite_group_commit import StorageError
from knative.local.broker.config import BrokerConfig, Trigger
from knative.local.broker.dispatcher import Dispatcher, DispatchLimits
from knative.local.broker.ingress import Ingress
from knative.local.broker.metrics import Metrics, TriggerMetrics
from knative.local.broker.storage import Storage
from observability import metrics
from observability.failpoints import failpoint

log = logging.getLogger("shop.broker")

DEAD_LETTERS: Final = "/dead-letters"
_WEBHOOK: Final = (
    (b"webhook-allowed-origin", b"*"),
    (b"webhook-allowed-rate", b"*"),
    (b"allow", b"POST, OPTIONS"),
)


class BrokerApp:
    """The ASGI application; call `start` and `stop` on the loop that serves it.

    `data_dir` is created if necessary and contains `broker.db` and `deadletters.db`. `clock` returns Unix time.
    `callers` authenticates requests that read, replay or discard dead letters.
    """

    def __init__(
        self,
        config: BrokerConfig,
        data_dir: Path,
        *,
        registry: CollectorRegistry | None = None,
        limits: DispatchLimits | None = None,
        callers: Callers | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._data_dir = data_dir
        self._metrics = Metrics(registry or CollectorRegistry())
        self._limits = limits or DispatchLimits()
        self._clock = clock
        self._ready, self._stopped = False, True
        self._ingresses: dict[str, Ingress] = {}
        self._paths: dict[str, Ingress] = {}
        self._dispatchers: list[Dispatcher] = []
        self.dead_letters = DeadLetters(
            data_dir,
            replay=self._replay,
            registry=self._metrics.registry,
            triggers=[trigger.key for group in config.triggers.values() for trigger in group],
            callers=callers,
            clock=clock,
        )

    async def start(self) -> None:
        """Open the storage and resume pending deliveries. Raises StorageError (SchemaTooNew)."""
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._storage = Storage(self._data_dir / "broker.db")
        self._client = HttpClient()
        await self.dead_letters.start()
        triggers = [trigger for group in self._config.triggers.values() for trigger in group]
        ids = self._storage.dispatcher_ids(key for trigger in triggers for key in trigger.queues)
        self._continue_predecessors(triggers, ids)
        for key, group in self._config.triggers.items():
            dispatchers = [dispatcher for trigger in group for dispatcher in self._dispatchers_of(trigger, ids)]
            self._dispatchers += dispatchers
            ingress = Ingress(key, self._storage, dispatchers, self._metrics, self._clock)
            self._ingresses[key] = self._paths[f"/{key}"] = self._paths[f"/{key}/"] = ingress
        if len(self._ingresses) == 1:
            self._paths["/"] = next(iter(self._ingresses.values()))
        self._resume(ids)
        self._ready, self._stopped = True, False

    async def stop(self, grace: float = 10.0) -> None:
        """Refuse new events, let running requests end within `grace` seconds, and close the storage."""
        self._ready = False
        if self._stopped:
            return
        self._stopped = True
        await asyncio.gather(*(dispatcher.stop(grace) for dispatcher in self._dispatchers))
        self._client.close()
        await self.dead_letters.stop()
        await self._storage.close()

    def refuse(self) -> None:
        """Refuse new events (503) and report that the broker is not ready. Deliveries continue."""
        self._ready = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request (ASGI). The lifespan protocol is not served: call `start` and `stop`."""
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        try:
            ingress = self._paths.get(scope["path"])
            if ingress is not None:
                query(scope)
                await self._take(ingress, scope, receive, send)
            else:
                await self._others(scope, receive, send)
        except Problem as problem:
            self._metrics.rejected.labels(problem.reason).inc()
            await respond_problem(send, problem)

    async def _take(self, ingress: Ingress, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            if scope["method"] != "OPTIONS":
                raise method_not_allowed("POST", "OPTIONS")
            # The handshake of CloudEvents' web hooks, as in Knative.
            await respond(send, 200, headers=_WEBHOOK)
            return
        body = await read_body(receive)
        if not self._ready:
            raise Problem(503, "SHUTTING_DOWN", "the broker is stopping", ((b"retry-after", b"1"),))
        try:
            failpoint("broker.accept.before")
            await ingress.accept(parse(scope["headers"], body))
            failpoint("broker.accept.after")
        except BadEvent as error:
            status = 415 if error.reason == "UNSUPPORTED_FORMAT" else 400
            correlation = header(scope, b"ce-correlationid")[:64]
            fields = {"broker": ingress.key, "reason": error.reason, "why": str(error)}
            log.warning("event refused", extra={**fields, "correlation_id": correlation})
            raise Problem(status, error.reason, str(error)) from None
        except StorageError:
            raise Problem(503, "STORAGE", "the event cannot be kept now", ((b"retry-after", b"1"),)) from None
        failpoint("broker.acknowledge.before")
        await respond(send, 202)
        failpoint("broker.acknowledge.after")

    async def _others(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path == DEAD_LETTERS or path.startswith(f"{DEAD_LETTERS}/"):
            await self.dead_letters({**scope, "path": path.removeprefix(DEAD_LETTERS) or "/"}, receive, send)
            return
        if path not in ("/healthz/live", "/healthz/ready", "/metrics"):
            raise Problem(404, "NOT_FOUND", "no broker has this address")
        if scope["method"] not in ("GET", "HEAD"):
            raise method_not_allowed("GET", "HEAD")
        if path == "/metrics":
            body, content_type = metrics.exposition(header(scope, b"accept"), self._metrics.registry)
            await respond(send, 200, body, content_type.encode())
        elif path == "/healthz/live" or self._serves():
            await respond_json(send, 200, {"status": "ok"})
        else:
            raise Problem(503, "NOT_READY", "starting, stopping, or the storage does not answer")

    def _serves(self) -> bool:
        try:
            if self._ready:
                self._storage.check()
        except sqlite3.Error:
            return False
        return self._ready

    def _dispatchers_of(self, trigger: Trigger, ids: dict[str, int]) -> list[Dispatcher]:
        metrics = TriggerMetrics(self._metrics, trigger.key)
        return [
            Dispatcher(
                trigger,
                event_type,
                ids[key],
                self._storage,
                self._client,
                metrics,
                reply=partial(self._reply, trigger.broker),
                limits=self._limits,
                clock=self._clock,
            )
            for key, event_type in trigger.queues.items()
        ]

    def _continue_predecessors(self, triggers: list[Trigger], ids: dict[str, int]) -> None:
        """Move pending deliveries of dispatchers that no longer exist to the dispatchers that replace them."""
        current = {key for trigger in triggers for key in trigger.queues}
        pending = self._storage.depths()
        for old in (key for key, number in ids.items() if key not in current and number in pending):
            for trigger in triggers:
                for key, event_type in trigger.queues.items():
                    if trigger.continues(old):
                        self._storage.move(ids[old], ids[key], event_type)

    def _resume(self, ids: dict[str, int]) -> None:
        depths = self._storage.depths()
        for dispatcher in self._dispatchers:
            dispatcher.start(depths.pop(dispatcher.id, 0))
        names = {number: key for key, number in ids.items()}
        for number, count in depths.items():
            # They stay stored: if the trigger is added again, it resumes them.
            log.warning("deliveries of an unknown trigger rest", extra={"trigger": names[number], "count": count})

    async def _reply(self, key: str, event: CloudEvent, ttl: int, done: tuple[int, int]) -> None:
        await self._ingresses[key].reply(event, ttl, done)

    async def _replay(self, event: CloudEvent, broker: str | None) -> None:
        ingress = self._ingresses.get(broker or "") or next(iter(self._ingresses.values()))
        try:
            await ingress.accept([event])
        except (BadEvent, StorageError) as error:
            raise ReplayFailed(str(error)) from None
