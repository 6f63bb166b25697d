"""Structured logs: one JSON object per line on standard output, with correlation and trace ids.

Fields: time (RFC 3339, UTC), level, service, event (the message), correlation_id, trace_id, span_id, and
the fields in `extra`. On a terminal, the same as one coloured line. All loggers of the standard library (uvicorn,
gunicorn, functions-framework, grpc), warnings and uncaught exceptions use this format. grpc's C core writes to standard
error directly; it is silenced, since each of its errors is also an RPC's status.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import msgspec

from observability import context

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "color_message"}
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_OTHERS = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "gunicorn",
    "gunicorn.error",
    "gunicorn.access",
    "functions_framework",
    "grpc",
)
_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return _encode(self.fields(record)).decode()

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the fields of a record."""
        ctx = context.current()
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "service": self._service,
            "event": record.getMessage(),
        }
        if ctx.correlation_id:
            fields["correlation_id"] = ctx.correlation_id
            fields["trace_id"] = ctx.trace_id
            fields["span_id"] = ctx.span_id
        for key, value in record.__dict__.items():
            if key not in _STANDARD:
                fields[key] = value
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return fields


class TerminalFormatter(JsonFormatter):
    """Formats a record for a terminal: time, level, service, event, then key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the coloured line."""
        fields = self.fields(record)
        moment, level = fields.pop("time"), fields.pop("level")
        service, event = fields.pop("service"), fields.pop("event")
        stack = fields.pop("exception", None)
        fields.pop("trace_id", None)
        fields.pop("span_id", None)
        rest = " ".join(f"{key}={value}" for key, value in fields.items())
        head = f"{moment:%H:%M:%S.%f} {_COLOURS.get(level, '')}{level:7}\x1b[0m"
        line = f"{head} {service} {event} \x1b[2m{rest}\x1b[0m"
        return f"{line}\n{stack}" if stack else line


def configure(service: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Log as `service` to `stream` (standard output); replaces the previous configuration."""
    out = stream or sys.stdout
    handler = logging.StreamHandler(out)
    handler.setFormatter(TerminalFormatter(service) if out.isatty() else JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("WARNING")
    logging.getLogger("shop").setLevel(level)
    for name in _OTHERS:
        noisy = logging.getLogger(name)
        noisy.handlers.clear()
        noisy.propagate = True
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # The logging HOWTO's optimizations. Without the source file, a line costs a fifth less; the fields do not show it.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - the name that the HOWTO documents


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger("shop.process").critical("uncaught", exc_info=(kind, error, trace))
