"""A platform that nobody else needs afterwards. FUZZ_MINUTES makes of the bounded, seeded form a long one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.e2e.platform import LocalPlatform

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is marked security."""
    for item in items:
        if "tests/fuzz" in item.path.as_posix():
            item.add_marker(pytest.mark.security)


def rounds(share: float) -> Iterator[int]:
    """Seeds: one, or as many as `share` of FUZZ_MINUTES has time for."""
    ends = time.monotonic() + MINUTES * share * 60
    yield 1
    seed = 1
    while time.monotonic() < ends:
        seed += 1
        yield seed


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    """Whose processes are the same at the end: none died, and none was started again."""
    # So many wrong passwords from one address are no attack here.
    local = LocalPlatform(tmp_path_factory.mktemp("fuzzed") / "data", LOGIN_FAILURES_PER_ADDRESS="1000000")
    local.start()
    before = {part: local.pid(part) for part in local.state()["parts"]}
    yield local
    assert {part: local.pid(part) for part in before} == before, "a part died"
    crashes = [line for part in before for line in local.log(part) if "crashed" in str(line.get("event"))]
    assert local.stop() == 0, local.output()
    assert not crashes
