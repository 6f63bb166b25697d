"""What is taken over from outside: W3C's trace context, of this version and later ones, in one line or several."""

from __future__ import annotations

import pytest

from observability import context
from observability.headers import combine, retry_after

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        (f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01"),
        (f"00-{TRACE}-{SPAN}-03", f"00-{TRACE}-{SPAN}-03"),
        (f"01-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01"),
        (f"cc-{TRACE}-{SPAN}-01-", f"00-{TRACE}-{SPAN}-01"),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", f"00-{TRACE}-{SPAN}-01"),
        (f"fe-{TRACE}-{SPAN}-f5", f"00-{TRACE}-{SPAN}-01"),
    ],
)
def test_a_traceparent_of_this_version_or_a_later_one_is_continued(sent: str, passed_on: str) -> None:
    taken = context.incoming(None, sent, "a=1,b=2")
    assert taken.traceparent == passed_on
    assert taken.tracestate == "a=1,b=2"
    assert taken.sampled
    assert not taken.root


@pytest.mark.parametrize(
    "sent",
    [
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"ff-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.what",
        f"cc-{TRACE}-{SPAN}-0",
        f"cc-{'0' * 32}-{SPAN}-01",
        f"cc-{TRACE}-{'0' * 16}-01",
        f"cc-{TRACE}-{SPAN}-01-\n",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 300}",
        f"cc-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-, cc-{TRACE}-{SPAN}-01",
    ],
)
def test_a_traceparent_that_is_none_begins_a_trace_without_its_state(sent: str) -> None:
    taken = context.incoming(None, sent, "a=1")
    assert taken.root
    assert TRACE not in taken.traceparent
    assert taken.tracestate == ""


def test_lines_of_a_field_are_joined_in_their_order() -> None:
    lines = [("tracestate", "a=1"), ("accept", "*/*"), ("tracestate", "b=2,c=3")]
    assert combine(lines, ", ") == {"tracestate": "a=1, b=2,c=3", "accept": "*/*"}
    assert context.incoming(None, f"00-{TRACE}-{SPAN}-01", "a=1, b=2").tracestate == "a=1, b=2"


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("named", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(named: str, seconds: float | None) -> None:
    assert retry_after(named, NOW) == seconds
