"""The correlation id and the W3C trace context of the current work, which every hop carries.

The context variable is the only source of truth. Servers (HTTP, gRPC, CloudEvents) set it; logs, spans, outgoing calls
and outbox rows read it. It needs no OpenTelemetry: with tracing off, the ids are propagated all the same.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

CORRELATION_HEADER = "x-correlation-id"

_CORRELATION_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
# W3C's list is printable ASCII; gRPC's metadata allows nothing else.
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
# Version 00 has four fields. Fields that a later version appends are ignored, as W3C specifies. A comma is refused,
# because it separates the values of a repeated header.
_IDS = r"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(rf"00-{_IDS}|(?!00|ff)[0-9a-f]{{2}}-{_IDS}(?:-[\x21-\x2b\x2d-\x7e]{{0,256}})?")
_KNOWN_FLAGS = 0x03


class Context:
    """One unit of work: correlation id (8 to 64 of `[A-Za-z0-9._-]`), and W3C's traceparent and tracestate.

    In hexadecimal: `trace_id` has 32 digits, `span_id` 16, `flags` 2. `sampled`: the trace is recorded (lowest bit of
    the flags). `root`: the ids were generated here and belong to no span; sampling is not decided yet.
    """

    __slots__ = ("correlation_id", "flags", "root", "sampled", "span_id", "trace_id", "tracestate")

    def __init__(self, correlation_id: str, traceparent: str, tracestate: str = "", *, root: bool = False) -> None:
        self.correlation_id = correlation_id
        self.trace_id = traceparent[3:35]
        self.span_id = traceparent[36:52]
        self.flags = traceparent[53:55]
        self.sampled = traceparent[54:55] in _ODD
        self.tracestate = tracestate
        self.root = root or not traceparent

    @property
    def traceparent(self) -> str:
        """Return the header for the next hop; empty outside any request or event."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}" if self.trace_id else ""


_ODD = frozenset("13579bdf")
_EMPTY = Context("", "")
_current: ContextVar[Context] = ContextVar("shop_context", default=_EMPTY)


current = _current.get
"""Return the context of the running task; its fields are empty outside any request or event."""


def new_traceparent() -> str:
    """Return a new W3C traceparent, not sampled: the tracer decides whether to record."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def incoming(correlation_id: str | None, traceparent: str | None, tracestate: str | None = None) -> Context:
    """Return the context of an incoming request or event; missing or malformed ids are generated.

    A traceparent of a later version becomes one of version 00 with its ids and its known flags.
    """
    trace = traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None
    if trace and trace[:2] != "00":
        trace = f"00{trace[2:53]}{int(trace[53:55], 16) & _KNOWN_FLAGS:02x}"
    correlation = correlation_id if correlation_id and _CORRELATION_ID.fullmatch(correlation_id) else None
    state = tracestate if trace and tracestate and _TRACESTATE.fullmatch(tracestate) else ""
    return Context(correlation or secrets.token_hex(16), trace or new_traceparent(), state, root=not trace)


def enter(context: Context) -> None:
    """Set the current context for the rest of this task: for servers, which own their task."""
    _current.set(context)


push = _current.set
"""Set the current context until `pop`; returns the token for it."""

pop = _current.reset
"""Restore the context from before the `push` that returned this token."""


@contextmanager
def use(context: Context) -> Iterator[Context]:
    """Set the current context within the block."""
    token = push(context)
    try:
        yield context
    finally:
        pop(token)
