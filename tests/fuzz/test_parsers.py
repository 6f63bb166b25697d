"""Parsers of what comes from outside, given anything; the long form is atheris' (see parsers.py)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.parsers import PARSERS, SEEDS


@st.composite
def mutated(draw: st.DrawFn, good: list[bytes]) -> bytes:
    """Something good with a few pieces of it replaced, doubled or cut out."""
    raw = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        ends = min(len(raw), at + draw(st.integers(0, 8)))
        raw = raw[:at] + draw(st.sampled_from([b"", raw[at:ends] * 2]) | st.binary(max_size=6)) + raw[ends:]
    return raw


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_ends_in_an_error_of_ours_or_in_nothing(name: str) -> None:
    @seed(1)
    @settings(max_examples=60, database=None, suppress_health_check=list(HealthCheck))
    @given(
        mutated(SEEDS[name])
        | st.binary(max_size=200)
        | st.text(st.characters(codec=None)).map(lambda t: t.encode("utf-8", "surrogatepass"))
    )
    def attack(raw: bytes) -> None:
        PARSERS[name](raw)

    for good in SEEDS[name]:
        PARSERS[name](good)
    attack()
