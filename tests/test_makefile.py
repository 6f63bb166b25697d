"""What people say to make reaches the program as they said it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def words(tmp_path: Path, target: str, *variables: str) -> list[str]:
    """The arguments of the first program that make starts."""
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    program.chmod(0o755)
    environ = {"PATH": os.environ["PATH"]}  # make takes any other variable for one of its own
    command = ["make", target, *variables, f"RUN={program}", "READY="]
    run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    said: list[str] = json.loads(run.stdout.splitlines()[0])
    return said


@pytest.mark.parametrize("said", ["a folder with spaces", "it's; echo gone", '$HOME & "quoted" *'])
@pytest.mark.parametrize(
    ("target", "variable"),
    [
        ("backup", "TO"),
        ("restore", "FROM"),
        ("up", "STORE"),
        ("drill", "STORE"),
        ("drill", "OVERLAY"),
        ("new-service", "NAME"),
        ("new-service", "ENTITY"),
        ("remove-service", "NAME"),
    ],
)
def test_a_text_is_one_word_of_the_command(tmp_path: Path, target: str, variable: str, said: str) -> None:
    others = [] if variable == "NAME" else ["NAME=inventory"]
    assert said in words(tmp_path, target, f"{variable}={said.replace('$', '$$')}", *others)


def test_what_is_not_said_is_no_word_at_all(tmp_path: Path) -> None:
    assert words(tmp_path, "backup")[-1] == "backup"
