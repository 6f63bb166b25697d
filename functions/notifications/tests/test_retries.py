"""A message that cannot be sent is retried for days."""

from __future__ import annotations

from datetime import timedelta

from functions.notifications.domain import MAX_ATTEMPTS
from functions.notifications.tests.shop import Shop
from functions.notifications.tests.test_messages import CONFIRMED


async def test_an_outage_of_four_days_costs_no_message() -> None:
    shop = Shop()
    shop.smtp.down = True
    await shop.receive(CONFIRMED)
    for _ in range(4 * 24):
        await shop.sweep(after=timedelta(hours=1))
    shop.smtp.down = False
    await shop.sweep(after=timedelta(hours=1))
    assert (await shop.message()).status == "SENT"


async def test_trying_ends_after_a_number_of_attempts() -> None:
    shop = Shop()
    shop.smtp.down = True
    await shop.receive(CONFIRMED)
    for _ in range(MAX_ATTEMPTS + 3):
        await shop.sweep(after=timedelta(hours=2))
    message = await shop.message()
    assert (message.status, message.attempts, message.reason) == ("FAILED", MAX_ATTEMPTS, "TOO_MANY_ATTEMPTS")


async def test_one_message_that_breaks_the_sweep_delays_no_other() -> None:
    shop = Shop()
    shop.smtp.down = True
    for number in range(25):  # more than one page
        await shop.receive(CONFIRMED, event_id=str(number))
    shop.smtp.down, shop.smtp.faults = False, [KeyError("a bug")]
    await shop.sweep()
    assert len(shop.smtp.sent) == 24
