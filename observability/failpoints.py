"""Named places where a test may have this process end as by kill -9: before and after whatever must survive that.

`failpoint("area.step.before")` does nothing, unless FAILPOINT=area.step.before:3 is in the environment: then the third
time that the process comes there (the first, without a number) is its last, and a line on standard error says so. In
production such a process refuses to start. tests/crash finds all points by reading the sources, hence: the name is a
literal, there is one call for each, and every `.before` has its `.after`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from itertools import count
from typing import NoReturn

VARIABLE = "FAILPOINT"
REACHED = "failpoint reached: "


def parse(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """The name that FAILPOINT arms, and which time counts; None for none. Raises ValueError."""
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
    """What a point does in a process that none is armed in."""


def _make(armed: tuple[str, int] | None) -> Callable[[str], None]:
    if armed is None:
        return _nothing
    wanted, last = armed
    times = count(1)  # atomic: some points lie in threads

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
