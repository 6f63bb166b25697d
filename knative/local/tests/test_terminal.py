"""What reaches the terminal."""

from __future__ import annotations

import io
import json

import pytest

from knative.local.terminal import Logs, Terminal, is_shown, readable


def entry(level: str, **fields: object) -> bytes:
    return json.dumps({"time": "t", "level": level, "service": "orders", "event": "it happened", **fields}).encode()


@pytest.mark.parametrize(
    ("logs", "shown"),
    [
        ("all", [True, True, True, True]),
        ("warn", [False, True, True, True]),
        ("error", [False, False, True, True]),
        ("none", [False, False, False, False]),
    ],
)
def test_warnings_errors_and_foreign_lines_are_shown_by_default(logs: Logs, shown: list[bool]) -> None:
    lines = [entry("INFO"), entry("WARNING"), entry("ERROR"), b"Traceback (most recent call last):"]
    assert [is_shown(line, logs) for line in lines] == shown


def test_a_log_line_is_shown_with_its_part_level_words_and_fields() -> None:
    out = io.StringIO()
    Terminal(out).log("orders", entry("WARNING", order_id="ord_1", correlation_id="abc"), "warn")
    assert out.getvalue() == "  orders        WARNING it happened order_id=ord_1 correlation_id=abc\n"


def test_a_line_that_is_no_json_is_shown_as_it_is() -> None:
    assert readable(b"{not json\n") == ("", "{not json")


def test_a_terminal_that_is_gone_stops_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    terminal = Terminal(Gone())
    terminal.line("nobody")
    terminal.line("reads")
