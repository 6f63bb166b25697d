"""Fixtures of a platform that is used by the fuzz tests only.

By default, a run is short and has the seed 1. FUZZ_MINUTES makes it long; FUZZ_SEED sets its first seed.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.e2e.platform import LocalPlatform

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
FIRST = int(os.environ.get("FUZZ_SEED") or (secrets.randbelow(10**9) if MINUTES else 1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seed with which to repeat the run."""
    terminalreporter.write_line(f"Fuzzed from FUZZ_SEED={FIRST}.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder as security."""
    for item in items:
        if "tests/fuzz" in item.path.as_posix():
            item.add_marker(pytest.mark.security)


def rounds(share: float) -> Iterator[int]:
    """Yield seeds: one, or as many as fit into `share` of FUZZ_MINUTES."""
    ends = time.monotonic() + MINUTES * share * 60
    for seed in count(FIRST):
        yield seed
        if time.monotonic() >= ends:
            return


def examples(most: int) -> settings:
    """Return settings for `most` examples a round, which depend on the round's seed alone."""
    return settings(
        max_examples=most,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    """Run a platform, and check at the end that none of its processes died or was restarted."""
    # The limit is raised because the tests send many wrong passwords from one address.
    local = LocalPlatform(tmp_path_factory.mktemp("fuzzed") / "data", LOGIN_FAILURES_PER_ADDRESS="1000000")
    local.start()
    before = {part: local.pid(part) for part in local.state()["parts"]}
    yield local
    try:
        assert {part: local.pid(part) for part in before} == before, "a part died"
    finally:
        stopped = local.stop()
    assert stopped == 0, local.output()
    assert not [line for part in before for line in local.log(part) if "crashed" in str(line.get("event"))]
