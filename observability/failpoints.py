"""Failpoints: named points before and after each crash-critical step, at which a test can kill the process by SIGKILL.

By default they do nothing. `failpoints("area.step")` is a context manager with a failpoint before and one after its
block. With FAILPOINT=area.step.before:3, the process kills itself at the third call of this failpoint (without a
number: the first) and reports it on standard error. In production a process with FAILPOINT refuses to start.
tests/crash finds the failpoints in the sources. So each name must be a literal with one call, and each `.before` needs
an `.after`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from functools import cache
from itertools import count
from typing import NoReturn

VARIABLE = "FAILPOINT"
REACHED = "failpoint reached: "


def parse(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the name and the number of the call from FAILPOINT, or None. Raises ValueError."""
    given = environ.get(VARIABLE, "")
    if not given:
        return None
    if environ.get("SHOP_ENV") == "production":
        raise ValueError(f"{VARIABLE} is for tests, and refused in production")
    name, _, nth = given.partition(":")
    if nth and (not nth.isdecimal() or int(nth) < 1):
        raise ValueError(f"{VARIABLE}: must be a failpoint's name, or name:number")
    return name, int(nth or 1)


def _nothing(_: str) -> None:
    """Do nothing: no failpoint is armed."""


def _make(armed: tuple[str, int] | None) -> Callable[[str], None]:
    if armed is None:
        return _nothing
    wanted, last = armed
    times = count(1)  # atomic: some points are reached in threads

    def failpoint(name: str) -> None:
        if name == wanted and next(times) == last:
            _die(name)

    return failpoint


def _die(name: str) -> NoReturn:
    os.write(2, f"{REACHED}{name}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


ARMED = parse(os.environ)
failpoint = _make(ARMED)


class Failpoints:
    """Context manager: failpoint `<step>.before` at its start and, unless it raises, `<step>.after` at its end."""

    def __init__(self, step: str) -> None:
        self._before, self._after = f"{step}.before", f"{step}.after"

    def __enter__(self) -> None:
        failpoint(self._before)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            failpoint(self._after)


failpoints = cache(Failpoints)
