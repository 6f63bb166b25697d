"""Documents name only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_REFERENCE = re.compile(r"`([\w/.]*test_\w+\.py)(?:::(\w+))?`")


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = _REFERENCE.findall((ROOT / "SECURITY.md").read_text())
    assert len(named) > 30
    for path, test in named:
        file = ROOT / "tests" / path
        assert file.is_file(), path
        assert not test or f"def test_{test}(" in file.read_text(), f"{path}::{test}"


def test_every_test_that_the_guarantees_name_exists() -> None:
    named = _REFERENCE.findall((ROOT / "docs/guarantees.md").read_text())
    assert len(named) > 15
    assert [path for path, _ in named if not (ROOT / path).is_file()] == []
