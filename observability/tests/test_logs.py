"""Log lines: the same JSON whoever logs, and coloured ones for a terminal."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from observability import context, logs

ROOT = Path(__file__).parents[2]
STANDARD = {"time", "level", "service", "event"}
PROCESS = """
import logging, sys, warnings
from observability import logs
logs.configure("probe", "INFO")
{body}
"""


def run(body: str) -> list[dict[str, Any]]:
    """The lines that a process of its own writes to either output."""
    ran = subprocess.run(
        [sys.executable, "-c", PROCESS.format(body=body)],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return [json.loads(line) for line in (ran.stdout + ran.stderr).splitlines()]


class Terminal(io.StringIO):
    """What says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def configured() -> Iterator[None]:
    """What is configured within is undone."""
    root, hook = logging.getLogger(), sys.excepthook
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], sys.excepthook = handlers, hook
    root.setLevel(level)
    logging.captureWarnings(False)
    logging.getLogger("shop").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    "logger",
    [
        "shop.x",
        "uvicorn.error",
        "gunicorn.error",
        "functions_framework",
        "grpc._cython.cygrpc",
        "asyncio",
        "botocore",
    ],
)
def test_whoever_logs_the_line_is_the_same_json(logger: str) -> None:
    (line,) = run(f"logging.getLogger({logger!r}).error('went %s', 'wrong')")
    assert set(line) == STANDARD
    assert (line["level"], line["service"], line["event"]) == ("ERROR", "probe", "went wrong")


def test_frameworks_that_bring_handlers_of_their_own_do_not_write_twice() -> None:
    body = "logging.getLogger('gunicorn.error').error('once')"
    before = "logging.getLogger('gunicorn.error').addHandler(logging.StreamHandler())\nlogs.configure('probe')\n"
    assert [line["event"] for line in run(before + body)] == ["once"]


def test_grpc_writes_nothing_past_the_log_when_its_core_has_something_to_say() -> None:
    body = """
import grpc
call = grpc.insecure_channel("ipv4:256.0.0.1:1").unary_unary("/a/b")
try:
    call(b"", timeout=0.2)
except grpc.RpcError as error:
    logging.getLogger("shop.x").warning("failed", extra={"code": error.code().name})
"""
    assert [line["event"] for line in run(body)] == ["failed"]


def test_warnings_and_what_nobody_caught_are_lines_too_with_the_stack_in_a_field() -> None:
    warned, crashed = run("warnings.warn('old', DeprecationWarning)\n1 / 0")
    assert "DeprecationWarning: old" in warned["event"]
    assert (crashed["level"], crashed["event"]) == ("CRITICAL", "uncaught")
    assert "ZeroDivisionError" in crashed["exception"]


@pytest.mark.usefixtures("configured")
def test_a_line_within_work_names_its_trace_and_what_it_was_given() -> None:
    out = io.StringIO()
    logs.configure("probe", "INFO", out)
    with context.use(context.incoming("a-correlation-id", None)) as work:
        logging.getLogger("shop.x").info("done", extra={"order_id": "ord_1"})
    line = json.loads(out.getvalue())
    assert line["correlation_id"] == "a-correlation-id"
    assert (line["trace_id"], line["span_id"], line["order_id"]) == (work.trace_id, work.span_id, "ord_1")


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(("level", "written"), [("DEBUG", 4), ("INFO", 3), ("WARNING", 2), ("ERROR", 1)])
def test_the_level_decides_what_is_written(level: str, written: int) -> None:
    out = io.StringIO()
    logs.configure("probe", level, out)
    log = logging.getLogger("shop.x")
    for write in (log.debug, log.info, log.warning, log.error):
        write("line")
    assert len(out.getvalue().splitlines()) == written


@pytest.mark.usefixtures("configured")
def test_on_a_terminal_lines_are_coloured_by_their_level_and_for_eyes() -> None:
    out = Terminal()
    logs.configure("probe", "INFO", out)
    logging.getLogger("shop.x").error("failed", extra={"order_id": "ord_1"})
    line = out.getvalue()
    assert "\x1b[31mERROR" in line
    assert "probe failed" in line
    assert "order_id=ord_1" in line
    assert not line.startswith("{")
