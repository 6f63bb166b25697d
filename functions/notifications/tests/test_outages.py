"""What cannot be sent is tried again, for days."""

from __future__ import annotations

from datetime import timedelta

from functions.notifications.domain import MAX_ATTEMPTS
from functions.notifications.tests.office import Office
from functions.notifications.tests.test_telling import CONFIRMED


async def test_an_outage_of_four_days_costs_no_message() -> None:
    office = Office()
    office.post.down = True
    await office.receive(CONFIRMED)
    for _ in range(4 * 24):
        await office.sweep(after=timedelta(hours=1))
    office.post.down = False
    await office.sweep(after=timedelta(hours=1))
    assert (await office.message()).status == "SENT"


async def test_trying_ends_after_a_number_of_attempts() -> None:
    office = Office()
    office.post.down = True
    await office.receive(CONFIRMED)
    for _ in range(MAX_ATTEMPTS + 3):
        await office.sweep(after=timedelta(hours=2))
    message = await office.message()
    assert (message.status, message.attempts, message.reason) == ("FAILED", MAX_ATTEMPTS, "TOO_MANY_ATTEMPTS")
