"""Write lines for people, in colour if the output is a terminal."""

from __future__ import annotations

import json
import os
import sys
from typing import Final, Literal, TextIO

Logs = Literal["all", "warn", "error", "none"]

_COLOURS: Final = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "strong": "1"}
_ERRORS: Final = (b'"ERROR"', b'"CRITICAL"')
_LOUD: Final[dict[str, tuple[bytes, ...]]] = {"error": _ERRORS, "warn": (b'"WARNING"', *_ERRORS)}
# Fields that a line shows elsewhere, or that are of no use on one machine.
_QUIET_FIELDS: Final = {"time", "level", "service", "event", "message", "trace_id", "span_id", "logger", "exception"}


class Terminal:
    """Writes whole lines to one output."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._colourful = self._out.isatty() and "NO_COLOR" not in os.environ
        self._width = 13
        self._is_read = True

    def line(self, text: str = "") -> None:
        """Write one line unchanged."""
        if not self._is_read:
            return
        try:
            print(text, file=self._out, flush=True)
        except OSError:
            # The output was closed (a closed terminal, `| head`): the platform continues without output.
            self._is_read = False

    def part(self, name: str, text: str, tone: str = "") -> None:
        """Write a line about one part, which begins with the part's name."""
        self.line(f"  {self.paint(f'{name:<{self._width}}', 'strong')} {self.paint(text, tone)}")

    def paint(self, text: str, tone: str) -> str:
        """Return the text in a colour if the output is a terminal."""
        return f"\x1b[{_COLOURS[tone]}m{text}\x1b[0m" if self._colourful and tone else text

    def log(self, name: str, raw: bytes, logs: Logs) -> None:
        """Write a line of a part's log in readable form, if the terminal shows it at the level `logs`."""
        if is_shown(raw, logs):
            level, text = readable(raw)
            tone = {"WARNING": "warn", "ERROR": "bad", "CRITICAL": "bad"}.get(level, "dim")
            self.part(name, text, tone)


def is_shown(raw: bytes, logs: Logs) -> bool:
    """Return whether the terminal shows a log line at the level `logs`.

    `warn` shows warnings and errors, `error` only errors. Both also show lines that are not JSON (tracebacks, output of
    libraries).
    """
    if logs in _LOUD and raw.startswith(b"{"):
        return any(mark in raw for mark in _LOUD[logs])
    return logs != "none" and bool(raw.strip())


def readable(raw: bytes) -> tuple[str, str]:
    """Return the level and the readable text of a log line.

    The text is `WARNING event key=value ...`. A line that is not JSON is returned unchanged, with an empty level.
    """
    text = raw.decode(errors="replace").rstrip()
    try:
        record = json.loads(text) if text.startswith("{") else None
    except ValueError:
        record = None
    if not isinstance(record, dict):
        return "", text
    level = str(record.get("level", "")).upper()
    what = record.get("event") or record.get("message") or ""
    fields = " ".join(f"{k}={v}" for k, v in record.items() if k not in _QUIET_FIELDS and v not in (None, ""))
    head = " ".join(word for word in (level, str(what), fields) if word)
    return level, f"{head}\n{record['exception']}" if record.get("exception") else head
