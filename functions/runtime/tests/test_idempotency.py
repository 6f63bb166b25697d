"""Idempotency records and inbox records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from functions.runtime.idempotency import fingerprint, idempotency_record, wrong_key
from functions.runtime.inbox import inbox_record
from functions.runtime.tests.store_kinds import Counter


def test_a_key_is_its_users_own_and_lives_a_day() -> None:
    mine = idempotency_record("orders:usr_1", "key", fingerprint(b"a"), Counter)

    assert mine.ttl == timedelta(hours=24)
    assert mine.answer is Counter
    assert mine.key != idempotency_record("orders:usr_2", "key", fingerprint(b"a"), Counter).key


def test_requests_are_told_apart_by_their_bytes() -> None:
    assert fingerprint(b"a") == fingerprint(b"a") != fingerprint(b"b")


@pytest.mark.parametrize("key", ["x", "x" * 255, "a b:c/d~"])
def test_a_key_of_printable_ascii_is_taken(key: str) -> None:
    assert idempotency_record("scope", key, "f", Counter).key.endswith(key)


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\nb", "\x7f"])
def test_any_other_key_is_refused(key: str) -> None:
    assert [field for field, _ in wrong_key(key)] == ["idempotency_key"]


def test_no_key_is_right() -> None:
    assert list(wrong_key(None)) == []


def test_an_event_is_known_by_source_and_id() -> None:
    known = [("/orders", "1"), ("/orders", "2"), ("/products", "1")]
    records = [inbox_record(source, event_id, datetime.now(UTC)) for source, event_id in known]

    assert len({record.key for record in records}) == 3
    assert records[0].answer is None
