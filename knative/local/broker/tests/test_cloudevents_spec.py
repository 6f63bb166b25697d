"""What CloudEvents 1.0.2 says of an intermediary, under the names of its sections.

The HTTP protocol binding, the JSON format, and the features of cloudevents/conformance. What the other modules here
show is not repeated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from events.cloudevent import BadEvent, CloudEvent, parse
from events.tests.support import headers, subscribed, until
from knative.local.broker.tests.support import broker, running, trigger

FEATURE = {
    "specversion": "1.0",
    "type": "com.example.someevent",
    "time": "2018-04-05T03:56:24Z",
    "id": "1234-1234-1234",
    "source": "/mycontext/subcontext",
}
HELLO = b'{\n    "message": "Hello World!"\n}\n'


def read(content_type: str, body: bytes, **attributes: str | bytes) -> CloudEvent:
    """The one event of a message with these headers, as the conformance suite's `When parsed as HTTP request`."""
    given = [
        (f"ce-{name}".encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in attributes.items()
    ]
    (event,) = parse([*given, (b"content-type", content_type.encode())], body)
    return event


def note(value: str | bytes) -> str:
    """What a header of an extension is read as."""
    return read("application/json", b"{}", **FEATURE, note=value).attributes["note"]


class TestConformanceHttpProtocolBinding:
    """cloudevents/conformance, features/http-protocol-binding.feature."""

    @pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
    def test_binary_content_mode(self, content_type: str) -> None:
        event = read(content_type, HELLO, **FEATURE)
        assert event.attributes == {**FEATURE, "datacontenttype": content_type}
        assert json.loads(event.data) == {"message": "Hello World!"}

    @pytest.mark.parametrize(
        "content_type", ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8"]
    )
    def test_structured_content_mode(self, content_type: str) -> None:
        document = {**FEATURE, "datacontenttype": "application/json", "data": {"message": "Hello World!"}}
        event = read(content_type, json.dumps(document, indent=4).encode())
        assert event.attributes == {**FEATURE, "datacontenttype": "application/json"}
        assert json.loads(event.data) == {"message": "Hello World!"}


class TestHttpBindingHeaderValues:
    """HTTP protocol binding, 3.1.3.2: quotes go first, then one round of percent-decoding, then UTF-8."""

    @pytest.mark.parametrize(
        ("sent", "meant"),
        [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro \u20ac \U0001f600"),  # the section's example
            ("%e2%82%ac", "\u20ac"),
            ("%C5%81%C3%B3d%C5%BA", "\u0141\u00f3d\u017a"),
            ("%2541", "%41"),
            ("100%", "100%"),
            ("%zz", "%zz"),
            ("a+b", "a+b"),
            ("caf\u00e9", "caf\u00e9"),
            ('"a quoted \\"value\\""', 'a quoted "value"'),
            ('"back\\\\slash"', "back\\slash"),
            ('"%22"', '"'),
            ("back\\slash", "back\\slash"),
            ('"open', '"open'),
        ],
    )
    def test_a_value_is_decoded_once(self, sent: str, meant: str) -> None:
        assert note(sent) == meant

    @pytest.mark.parametrize("sent", ["%ff", "%C3", "%E2%82", "%ED%A0%80", "%C0%AF", b"\xff", b"\xc3"])
    def test_what_is_no_utf8_is_refused(self, sent: str | bytes) -> None:
        with pytest.raises(BadEvent) as caught:
            note(sent)
        assert caught.value.reason == "INVALID_UTF8"

    async def test_what_is_forwarded_is_encoded_again(self, tmp_path: Path) -> None:
        text = 'Euro \u20ac "quoted" 100% \U0001f600'
        async with subscribed() as one, running(tmp_path, broker(), trigger("t", one.url)) as it:
            document = {**FEATURE, "note": text}
            sent = {"content-type": "application/cloudevents+json"}
            await it.http.post("/", headers=sent, content=json.dumps(document))
            await until(lambda: len(one.received) == 1)
        assert one.received[0].headers["ce-note"] == ("Euro%20%E2%82%AC%20%22quoted%22%20100%25%20%F0%9F%98%80")
        assert note(one.received[0].headers["ce-note"]) == text


class TestCloudEventsAttributes:
    """CloudEvents, Attribute Naming Convention and Type System."""

    def test_a_longer_name_than_recommended_is_no_reason_to_refuse_an_event(self) -> None:
        name = "a" * 21
        assert read("text/plain", b"x", **FEATURE, **{name: "1"}).attributes[name] == "1"

    @pytest.mark.parametrize(
        ("value", "text"), [(True, "true"), (-(2**31), "-2147483648"), ("", ""), ("\u00e9", "\u00e9")]
    )
    def test_json_values_have_their_canonical_text(self, value: object, text: str) -> None:
        document = json.dumps({**FEATURE, "ext": value}).encode()
        assert read("application/cloudevents+json", document).attributes["ext"] == text

    @pytest.mark.parametrize("time", ["2018-04-05T03:56:24+02:00", "2018-04-05t03:56:24.123456789z"])
    def test_a_timestamp_is_kept_as_it_is_written(self, time: str) -> None:
        assert read("text/plain", b"", **{**FEATURE, "time": time}).attributes["time"] == time


class TestJsonFormat:
    """CloudEvents' JSON format, 3.1 (data) and 4 (batch)."""

    @pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "utf-16"])
    def test_the_charset_of_the_envelope_is_honoured(self, charset: str) -> None:
        encoding = "utf-16" if charset == "utf-16" else "utf-8"
        document = json.dumps({**FEATURE, "data": "\u20ac"}, ensure_ascii=False).encode(encoding)
        event = read(f"application/cloudevents+json; charset={charset}", document)
        assert json.loads(event.data) == "\u20ac"

    def test_an_envelope_that_is_no_utf8_is_refused(self) -> None:
        document = json.dumps({**FEATURE, "data": "\u00e9"}, ensure_ascii=False).encode("latin-1")
        with pytest.raises(BadEvent) as caught:
            read("application/cloudevents+json; charset=utf-8", document)
        assert caught.value.reason == "INVALID_UTF8"

    async def test_a_batch_may_be_empty(self, tmp_path: Path) -> None:
        async with subscribed() as one, running(tmp_path, broker(), trigger("t", one.url)) as it:
            sent = {"content-type": "application/cloudevents-batch+json; charset=utf-8"}
            assert (await it.http.post("/", headers=sent, content=b"[]")).status_code == 202
            assert (await it.post("after")).status_code == 202
            await until(lambda: one.ids == ["after"])


class TestSizeLimits:
    """CloudEvents, Size Limits: intermediaries MUST forward events of 64 KiB and less."""

    async def test_64_kib_pass_in_every_mode(self, tmp_path: Path) -> None:
        data = b"x" * (64 * 1024)
        document = {**FEATURE, "datacontenttype": "text/plain", "data": data.decode()}
        async with subscribed() as one, running(tmp_path, broker(), trigger("t", one.url)) as it:
            for content_type, body in (
                ("text/plain", data),
                ("application/cloudevents+json", json.dumps(document).encode()),
                ("application/cloudevents-batch+json", json.dumps([document]).encode()),
            ):
                sent = {**headers(), "content-type": content_type}
                assert (await it.http.post("/", headers=sent, content=body)).status_code == 202
            await until(lambda: len(one.received) == 3)
        assert [delivery.body for delivery in one.received] == [data] * 3

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_1_mib_is_too_much_and_a_byte_less_is_not(self, tmp_path: Path, chunked: bool) -> None:
        async def pieces(body: bytes) -> Any:
            yield body[:1000]
            yield body[1000:]

        async with subscribed() as one, running(tmp_path, broker(), trigger("t", one.url)) as it:
            for size, status in ((2**20 - 1, 202), (2**20, 413), (2**20 + 1, 413)):
                body = b"x" * size
                answer = await it.http.post("/", headers=headers(), content=pieces(body) if chunked else body)
                assert answer.status_code == status
            assert (await it.post("after")).status_code == 202
            await until(lambda: len(one.received) == 2)
