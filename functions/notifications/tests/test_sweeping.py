"""The sweep continues when one message fails."""

from __future__ import annotations

from events.catalog import Money, OrderConfirmed
from functions.notifications.tests.shop import ADA, ORDER, Shop

CONFIRMED = OrderConfirmed(order_id=ORDER, user_id=ADA, total=Money(100, "EUR"))


async def test_one_message_that_breaks_the_sweep_holds_up_no_other() -> None:
    shop = Shop()
    shop.smtp.down = True
    for number in range(25):  # more than one page
        await shop.receive(CONFIRMED, event_id=str(number))
    shop.smtp.down, shop.smtp.faults = False, [KeyError("a bug")]

    await shop.sweep()
    assert len(shop.smtp.sent) == 24
