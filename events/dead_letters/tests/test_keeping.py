"""How long dead letters are kept, what is counted, and how many go at once."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from events.dead_letters.tests.support import ERROR, sink
from events.tests.support import headers


async def test_all_attempts_are_counted_over_all_failures(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        await it.put()
        await it.put()
        (entry,) = await it.entries()
        assert (entry["failures"], entry["attempts"]) == (2, 12)
        await it.http.post("/", headers=headers("2", **ERROR), content=b"{}")  # by Knative, which does not say
        assert (await it.entries())[0]["attempts"] is None


async def test_knatives_filter_names_the_trigger_in_its_address(tmp_path: Path) -> None:
    filter_url = "http://broker-filter.knative-eventing.svc.cluster.local/triggers/shop/users-sweep/7e1c"
    async with sink(tmp_path) as it:
        given = headers(**{**ERROR, "knativeerrordest": filter_url})
        await it.http.post("/", headers=given, content=b"{}")
        (entry,) = await it.entries()
    assert (entry["trigger"], entry["destination"]) == ("shop/users-sweep", filter_url)


async def test_what_was_replayed_goes_after_a_week_and_what_was_not_stays(tmp_path: Path) -> None:
    week = 7 * 86400.0
    async with sink(tmp_path) as it:
        await it.put("replayed")
        (entry,) = await it.entries()
        await it.http.post(f"/entries/{entry['id']}/replay")
        await it.put("pending")
        later = it.now + week
    async with sink(tmp_path, later - 60) as it:
        assert len(await it.entries(status="replayed")) == 1
    async with sink(tmp_path, later + 60) as it:
        async with asyncio.timeout(10):
            while await it.entries(status="replayed"):  # forgotten at the start, beside all else
                pass
        assert [entry["event_id"] for entry in await it.entries()] == ["pending"]


async def test_many_are_discarded_at_once_by_status_and_type(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        for number, kind in enumerate(("a", "a", "b")):
            await it.put(str(number), type=kind)
        assert (await it.http.delete("/entries?type=a")).json() == {"discarded": 2}
        assert (await it.http.delete("/entries?type=a")).json() == {"discarded": 0}
        assert (await it.http.delete("/entries?status=replayed&all=true")).json() == {"discarded": 0}
        assert [entry["type"] for entry in await it.entries()] == ["b"]
        for vague in ("", "?status=pending", "?type=", "?all=", "?all=yes", "?all=false", "?all=true&type=a"):
            refused = await it.http.delete(f"/entries{vague}")
            assert (refused.status_code, refused.json()["reason"]) == (400, "FILTER_MISSING"), vague
        misspelt = await it.http.delete("/entries?all=true&event_type=a")
        assert misspelt.status_code == 400
        assert misspelt.json()["errors"] == [{"field": "event_type", "message": "is not a known parameter"}]
        assert (await it.http.delete("/entries?all=true")).json() == {"discarded": 1}
        assert await it.entries() == []


async def test_a_file_of_the_first_version_is_read_on(tmp_path: Path) -> None:
    async with sink(tmp_path) as it:
        await it.put("old")
    with sqlite3.connect(tmp_path / "deadletters.db") as db:
        db.executescript("ALTER TABLE entries DROP COLUMN attempts; PRAGMA user_version=1")
    async with sink(tmp_path) as it:
        (entry,) = await it.entries()
        assert (entry["event_id"], entry["attempts"]) == ("old", None)
        await it.put("old")
        assert (await it.entries())[0]["attempts"] == 6
