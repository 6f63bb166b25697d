"""Faults between boto3 and DynamoDB, for the tests of how the store takes them."""

from __future__ import annotations

import io
import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ReadTimeoutError

Fault = Callable[[Callable[[], Any]], Any]
"""Gets what would send the request; the answer in its place, or None to send it."""


class Faults:
    """Counts the calls by operation (`GetItem`), and spoils those that it is told to, once each, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self._next: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def next(self, operation: str, *faults: Fault) -> None:
        """What happens to the next calls of this operation."""
        self._next[operation].extend(faults)

    def spoil(self, client: Any) -> Any:
        """The client, with these faults."""

        def before_send(request: Any, **_: Any) -> Any:
            target = request.headers["X-Amz-Target"]
            operation = (target.decode() if isinstance(target, bytes) else target).rpartition(".")[2]
            self.calls.append(operation)
            self.bodies.append(json.loads(request.body))
            if not self._next[operation]:
                return None
            fault = self._next[operation].popleft()
            return fault(lambda: client._endpoint.http_session.send(request))

        client.meta.events.register("before-send.dynamodb", before_send)
        return client


def lost(send: Callable[[], Any]) -> Any:
    """The database does as asked, and nobody hears of it."""
    send()
    raise ReadTimeoutError(endpoint_url="http://test")


def refused(code: str, status: int = 400, **more: Any) -> Fault:
    """The database answers with this error and does nothing."""

    def answer(_: Callable[[], Any]) -> Any:
        body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "test", **more}
        return AWSResponse("http://test", status, {}, _Raw(json.dumps(body).encode()))

    return answer


def cancelled(*reasons: str) -> Fault:
    """A transaction is cancelled for these reasons."""
    return refused("TransactionCanceledException", CancellationReasons=[{"Code": it} for it in reasons])


def after(work: Callable[[], object]) -> Fault:
    """The request is sent, but `work` comes before it."""

    def act(_: Callable[[], Any]) -> Any:
        work()

    return act


def held(faults: Faults, operation: str) -> tuple[threading.Event, threading.Event]:
    """Hold the next call of this operation back: set when it comes, and to be set to let it go on."""
    asked, answers = threading.Event(), threading.Event()

    def hold() -> None:
        asked.set()
        answers.wait(20)

    faults.next(operation, after(hold))
    return asked, answers


class _Raw(io.BytesIO):
    def stream(self, *_: object, **__: object) -> Any:
        yield self.read()
