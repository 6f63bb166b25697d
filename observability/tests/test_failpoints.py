"""Failpoints: nothing unless armed; armed, the end of the process, there and then; never in production."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from observability import failpoints

SCRIPT = """
from observability.failpoints import failpoint
for number in range(5):
    print(number, flush=True)
    failpoint("a.step.before")
    failpoint("b.step.before")
"""


def run(**environ: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("FAILPOINT", "SHOP_ENV")}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**plain, **environ}, capture_output=True, text=True, check=False
    )


def test_without_the_variable_a_point_does_nothing() -> None:
    assert failpoints.failpoint is failpoints._nothing
    assert run().returncode == 0


def test_an_armed_point_kills_its_process_and_says_so() -> None:
    died = run(FAILPOINT="a.step.before")
    assert died.returncode == -signal.SIGKILL
    assert died.stdout.split() == ["0"]
    assert died.stderr == "failpoint reached: a.step.before\n"


def test_a_number_says_which_time_is_the_last() -> None:
    assert run(FAILPOINT="b.step.before:3").stdout.split() == ["0", "1", "2"]


def test_production_refuses_to_start_with_a_point_armed() -> None:
    refused = run(FAILPOINT="a.step.before", SHOP_ENV="production")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "refused in production" in refused.stderr


@pytest.mark.parametrize("given", ["a.step.before:0", "a.step.before:x", "a.step.before:-1"])
def test_a_number_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="must be a failpoint's name, or name:number"):
        failpoints.parse({"FAILPOINT": given})
