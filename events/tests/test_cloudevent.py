"""The codec that the broker and others share: what is emitted is parsed to the same."""

from __future__ import annotations

import contextlib
import json

import pytest
from cloudevents.conversion import to_binary
from cloudevents.conversion import to_structured as sdk_to_structured
from cloudevents.http import CloudEvent as SdkEvent
from cloudevents.http import from_http
from hypothesis import given
from hypothesis import strategies as st

from events.cloudevent import (
    STRUCTURED,
    BadEvent,
    CloudEvent,
    binary_headers,
    header_block,
    is_cloudevent,
    parse,
    parse_batch,
    parse_binary,
    parse_structured,
    to_structured,
)

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/orders", "type": "t"}
# CloudEvents' String type: anything but control characters, surrogates and noncharacters.
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=40)
NAMES = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(
    lambda name: name not in {*REQUIRED, "data", "datacontenttype", "time", "dataschema", "subject"}
)


@given(extensions=st.dictionaries(NAMES, TEXT, max_size=5), data=st.binary(max_size=200))
def test_the_binary_mode_gives_back_what_it_was_given(extensions: dict[str, str], data: bytes) -> None:
    event = CloudEvent({**REQUIRED, **extensions}, data)
    lines = header_block(event.attributes).split(b"\r\n")[:-1]
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    assert all(value.isascii() and b" " not in value for _, value in headers)
    assert parse_binary(headers, data).attributes == event.attributes
    assert binary_headers(event.attributes) == {name.decode(): value.decode() for name, value in headers}


@given(extensions=st.dictionaries(NAMES, TEXT, max_size=5), data=st.binary(max_size=200))
def test_the_structured_mode_gives_back_what_it_was_given(extensions: dict[str, str], data: bytes) -> None:
    event = CloudEvent({**REQUIRED, **extensions, "datacontenttype": "application/octet-stream"}, data)
    again = parse_structured(to_structured(event))
    assert (again.attributes, again.data) == (event.attributes, data)


@pytest.mark.parametrize("data", [b'{"a": [1, 2]}', b'"text"', b"{not json", b"\xff"])
def test_json_data_stays_itself_and_what_only_says_to_be_json_is_kept_too(data: bytes) -> None:
    event = CloudEvent({**REQUIRED, "datacontenttype": "application/json"}, data)
    assert parse_structured(to_structured(event)).data == data


@given(st.binary(max_size=300))
def test_a_body_whatever_is_an_event_or_refused(body: bytes) -> None:
    for content_type in (b"application/cloudevents+json", b"application/cloudevents-batch+json"):
        with contextlib.suppress(BadEvent):
            parse([(b"content-type", content_type)], body)


@given(st.recursive(st.none() | st.booleans() | st.integers(), st.lists, max_leaves=5) | TEXT)
def test_an_attribute_whatever_is_taken_or_refused(value: object) -> None:
    document = json.dumps([{**REQUIRED, "extra": value}]).encode()
    with contextlib.suppress(BadEvent):
        (event,) = parse_batch(document)
        assert event.attributes.get("extra", "") != "[]"


def test_quoted_header_values_are_unquoted() -> None:
    headers = [(f"ce-{name}".encode(), value.encode()) for name, value in REQUIRED.items()]
    event = parse_binary([*headers, (b"ce-note", b'"a \\"b\\" c"')], b"")
    assert event.attributes["note"] == 'a "b" c'


def test_a_trace_header_stands_in_for_the_extension_only_where_there_is_none() -> None:
    headers = [(f"ce-{name}".encode(), value.encode()) for name, value in REQUIRED.items()]
    trace = [(b"traceparent", b"00-a"), (b"tracestate", b"x=y")]
    event = parse_binary([*headers, *trace], b"")
    assert (event.attributes["traceparent"], event.attributes["tracestate"]) == ("00-a", "x=y")
    event = parse_binary([*headers, *trace, (b"ce-traceparent", b"00-b")], b"")
    assert event.attributes["traceparent"] == "00-b"
    assert "tracestate" not in event.attributes


def test_a_message_says_by_its_headers_that_it_is_an_event() -> None:
    assert is_cloudevent([(b"content-type", b"Application/CloudEvents+JSON")])
    assert is_cloudevent([(b"ce-specversion", b"1.0")])
    assert not is_cloudevent([(b"content-type", b"application/json")])


def test_the_cloudevents_sdk_reads_what_is_written_and_writes_what_is_read() -> None:
    extensions = {"subject": "o1", "time": "2030-01-01T00:00:00.000001+00:00", "partitionkey": "ä b%"}
    theirs = SdkEvent({**REQUIRED, **extensions, "datacontenttype": "application/json"}, {"a": [1, "ü"]})
    for headers, body in (to_binary(theirs), sdk_to_structured(theirs)):
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        (ours,) = parse(raw, body)
        assert ours.attributes == dict(theirs.get_attributes())
        assert json.loads(ours.data) == theirs.get_data()
        assert from_http(binary_headers(ours.attributes), ours.data).get_data() == theirs.get_data()
        assert from_http({"content-type": STRUCTURED}, to_structured(ours)) == theirs
