"""Deliver a trigger's events to its subscriber, with retries, or else to the dead-letter sink.

A trigger that names its event types has a dispatcher for each of them, so that neither a slow subscriber nor one slow
type delays others. A dispatcher has one worker queue for the subscriber and one for the dead-letter sink. The oldest
pending deliveries are in memory, up to a limit; the others stay in the database and are read when there is room. Timers
are in memory, but the times of the next attempts are in the database.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from events.cloudevent import CloudEvent, header_block, to_structured
from events.http_client import HttpClient, HttpTarget, RequestFailed
from events.sqlite_group_commit import StorageError
from knative.local.broker import delivery as rules
from knative.local.broker.config import Trigger
from knative.local.broker.delivery import Delivered, Failed
from knative.local.broker.metrics import TriggerMetrics
from knative.local.broker.spans import dead_letter_span, delivery_span
from knative.local.broker.storage import Failure, Storage, StoredEvent, trace_headers
from knative.local.broker.worker_queue import WorkerQueue
from observability import context, tracing
from observability.failpoints import failpoint

log = logging.getLogger("shop.broker")

_STRUCTURED_HEAD = b"content-type: application/cloudevents+json; charset=utf-8\r\n"
_STORAGE_PAUSE = 1.0
_STARTING_PAUSE = 0.5
# Attributes of an event that log lines contain, if the event has them.
_LOGGED = {"subject": "subject", "correlationid": "correlation_id"}


class DispatchLimits(NamedTuple):
    """Limits for each dispatcher: the number of concurrent requests, and of deliveries in memory.

    For `starting_seconds` after the broker's start, a subscriber that has never answered counts as still starting:
    failed requests to it use up no retries.
    """

    parallel: int = 32
    in_memory: int = 10_000
    starting_seconds: float = 0.0


class _PendingDelivery:
    __slots__ = ("attempts", "event")

    def __init__(self, event: StoredEvent, attempts: int = 0) -> None:
        self.event = event
        self.attempts = attempts


class _PendingDeadLetter:
    """A pending delivery to the dead-letter sink; its event is read from the database when it is sent."""

    __slots__ = ("attempts", "seq")

    def __init__(self, seq: int, attempts: int = 0) -> None:
        self.seq = seq
        self.attempts = attempts


Reply = Callable[[CloudEvent, int, tuple[int, int]], Awaitable[None]]
"""Accepts a reply and ends its delivery (dispatcher id, seq) in the same commit. The int is the ttl of the event."""


class Dispatcher:
    """Delivers a trigger's events of one type, or all of them if `event_type` is None; `clock` returns Unix time."""

    def __init__(
        self,
        trigger: Trigger,
        event_type: str | None,
        dispatcher_id: int,
        storage: Storage,
        client: HttpClient,
        metrics: TriggerMetrics,
        *,
        reply: Reply,
        limits: DispatchLimits,
        clock: Callable[[], float],
    ) -> None:
        self.id = dispatcher_id
        self.trigger = trigger
        self.event_type = event_type
        self._policy = trigger.delivery
        self._storage = storage
        self._client = client
        self._metrics = metrics
        self._reply = reply
        self._limits = limits
        self._clock = clock
        self._subscriber, self._sink = _targets(client, trigger)
        self._deliveries: WorkerQueue[_PendingDelivery] = WorkerQueue(self._deliver, limits.parallel)
        self._dead_letters: WorkerQueue[_PendingDeadLetter] = WorkerQueue(
            self._send_dead_letter, max(1, limits.parallel // 4)
        )
        self._held = 0  # number of deliveries in memory: queued, running, or waiting for their timer
        self._last = 0  # number of the newest event that has been in memory
        self._more_on_disk = False
        self._starting_until = clock() + limits.starting_seconds
        self._has_answered = False

    def start(self, depth: int) -> None:
        """Resume the deliveries that a previous run left; `depth` is their number."""
        self._metrics.depth += depth
        if depth == 0:
            return
        self._refill()
        now = self._clock()
        for seq, attempts, next_at in self._storage.dead_pending(self.id):
            self._dead_letters.push_later(_PendingDeadLetter(seq, attempts), next_at - now)

    async def stop(self, grace: float) -> None:
        """Start no more requests, and let running requests end within `grace` seconds."""
        await asyncio.gather(self._deliveries.stop(grace), self._dead_letters.stop(grace))

    def enqueue(self, event: StoredEvent) -> None:
        """Queue an event that has just become durable."""
        self._metrics.depth += 1
        if event.seq <= self._last:
            return  # _refill has already read it, after its commit
        if self._more_on_disk or self._held >= self._limits.in_memory:
            self._more_on_disk = True
            return
        self._hold(event.seq)
        self._deliveries.push(_PendingDelivery(event))

    def _hold(self, seq: int) -> None:
        self._held += 1
        self._last = seq

    def _refill(self) -> None:
        now = self._clock()
        room = self._limits.in_memory - self._held
        found = self._storage.pending(self.id, self._last, room)
        self._more_on_disk = len(found) == room
        for event, attempts, next_at in found:
            self._hold(event.seq)
            self._deliveries.push_later(_PendingDelivery(event, attempts), next_at - now)

    def _released(self) -> None:
        self._held -= 1
        if self._more_on_disk and self._held <= self._limits.in_memory // 2:
            self._refill()

    async def _deliver(self, delivery: _PendingDelivery) -> None:
        failpoint("broker.deliver.before")
        outcome = await self._attempt(delivery)
        failpoint("broker.deliver.after")
        try:
            if isinstance(outcome, Delivered):
                await self._succeeded(delivery.event, outcome)
            else:
                await self._failed(delivery, outcome)
        except StorageError:
            # The outcome cannot be stored, so the event is delivered again ("at least once" permits this).
            self._deliveries.push_later(delivery, _STORAGE_PAUSE)

    async def _attempt(self, delivery: _PendingDelivery) -> Delivered | Failed:
        """Send one request to the subscriber, in its own span."""
        event = delivery.event
        if not tracing.enabled():
            return await self._request(event, event.trace)
        with delivery_span(self.trigger.key, event.attributes, delivery.attempts) as span:
            here = context.current()
            outcome = await self._request(event, trace_headers(here.traceparent, here.tracestate))
            if isinstance(outcome, Failed):
                tracing.mark_failed(span, str(outcome.code))
            return outcome

    async def _request(self, event: StoredEvent, trace: bytes) -> Delivered | Failed:
        head, body = event.head, event.data
        if self._policy.structured:
            head, body = _STRUCTURED_HEAD, to_structured(event.cloudevent())
        started = time.perf_counter()
        outcome: Delivered | Failed
        try:
            response = await self._client.post(self._subscriber, head + trace, body, self._policy.timeout)
            self._has_answered = True
            outcome = rules.judge(response, self._clock())
        except RequestFailed as error:
            outcome = rules.unreachable(str(error))
        self._metrics.latency.observe(time.perf_counter() - started)
        return outcome

    async def _succeeded(self, event: StoredEvent, outcome: Delivered) -> None:
        if outcome.reply is not None:
            await self._reply(outcome.reply, event.ttl, (self.id, event.seq))
            self._metrics.replies.inc()
        else:
            self._storage.done(self.id, event.seq)
        self._metrics.succeeded.inc()
        self._metrics.delivered.inc()
        self._metrics.depth -= 1
        self._released()

    async def _failed(self, delivery: _PendingDelivery, failed: Failed) -> None:
        self._metrics.failed.inc()
        if not self._has_answered and self._clock() < self._starting_until:
            self._deliveries.push_later(delivery, _STARTING_PAUSE)
            return
        delivery.attempts += 1
        if failed.retryable and delivery.attempts <= self._policy.retry:
            wait = rules.delay(self._policy, delivery.attempts, failed.retry_after)
            self._storage.retry(self.id, delivery.event.seq, delivery.attempts, self._clock() + wait)
            self._metrics.retries.inc()
            self._deliveries.push_later(delivery, wait)
            self._log("delivery failed, retrying", delivery.event, failed, attempts=delivery.attempts, wait=wait)
        else:
            await self._give_up(delivery, failed)
            self._released()

    async def _give_up(self, delivery: _PendingDelivery, failed: Failed) -> None:
        event = delivery.event
        if self._sink is None:
            self._storage.done(self.id, event.seq)
            self._metrics.dropped.inc()
            self._metrics.depth -= 1
            self._log("event dropped: no dead-letter sink", event, failed, attempts=delivery.attempts)
            return
        failpoint("broker.give-up.before")
        failure = rules.failure(self.trigger.subscriber_url, failed, delivery.attempts)
        await self._storage.give_up(self.id, event.seq, failure)
        failpoint("broker.give-up.after")
        self._log("delivery given up: to the dead-letter sink", event, failed, attempts=delivery.attempts)
        self._dead_letters.push(_PendingDeadLetter(event.seq))

    async def _send_dead_letter(self, dead_letter: _PendingDeadLetter) -> None:
        event, failure = self._storage.dead_letter(self.id, dead_letter.seq)
        if self._sink is None:  # the trigger had a sink when the delivery was given up
            self._metrics.dropped.inc()
            log.warning("event dropped: no dead-letter sink any more", extra=self._fields(event.attributes))
        elif await self._sent(self._sink, event, failure):
            self._metrics.dead_lettered.inc()
        else:
            self._metrics.sink_failures.inc()
            dead_letter.attempts += 1
            wait = rules.dead_letter_delay(dead_letter.attempts)
            self._storage.retry(self.id, dead_letter.seq, dead_letter.attempts, self._clock() + wait)
            self._dead_letters.push_later(dead_letter, wait)
            log.warning("the dead-letter sink failed, retrying", extra=self._fields(event.attributes))
            return
        self._storage.done(self.id, dead_letter.seq)
        self._metrics.depth -= 1

    async def _sent(self, sink: HttpTarget, event: CloudEvent, failure: Failure) -> bool:
        head = header_block(rules.dead_letter_attributes(event.attributes, failure))
        head += b"kn-attempts: %d\r\n" % failure.attempts
        with dead_letter_span(self.trigger.key, event.attributes) as span:
            try:
                failpoint("broker.dead-letter.before")
                status = (await self._client.post(sink, head, event.data, self._policy.timeout)).status
                failpoint("broker.dead-letter.after")
            except RequestFailed:
                status = 0
            if not 200 <= status < 300:
                tracing.mark_failed(span, str(status or "unreachable"))
                return False
        return True

    def _log(self, message: str, event: StoredEvent, failed: Failed, **more: object) -> None:
        more |= {"subscriber": self.trigger.subscriber_url, "code": failed.code}
        if failed.explained:
            # Without the reason, the code (Knative's 500 or 502) looks as if the subscriber had sent it.
            more["reason"] = failed.body.decode(errors="replace")
        log.warning(message, extra={**self._fields(event.attributes), **more})

    def _fields(self, attributes: dict[str, str]) -> dict[str, str]:
        fields = {"trigger": self.trigger.key, "event_id": attributes["id"], "event_type": attributes["type"]}
        for attribute, field in _LOGGED.items():
            if attribute in attributes:
                fields[field] = attributes[attribute]
        return fields


def _targets(client: HttpClient, trigger: Trigger) -> tuple[HttpTarget, HttpTarget | None]:
    """Return the targets of the subscriber and the dead-letter sink, each with its headers (those of Knative)."""
    extra = f"kn-namespace: {trigger.namespace}\r\n".encode()
    subscriber = client.target(trigger.subscriber_url, b"prefer: reply\r\n" + extra)
    origin = f"kn-trigger: {trigger.key}\r\nkn-broker: {trigger.broker}\r\n".encode()
    sink = trigger.delivery.dead_letter_url
    return subscriber, client.target(sink, extra + origin) if sink else None
