"""What the sweep does with messages that others spoil."""

from __future__ import annotations

from events.catalog import Money, OrderConfirmed
from functions.notifications.tests.office import ADA, ORDER, Office

CONFIRMED = OrderConfirmed(order_id=ORDER, user_id=ADA, total=Money(100, "EUR"))


async def test_one_message_that_breaks_the_sweep_holds_up_no_other() -> None:
    office = Office()
    office.post.down = True
    for number in range(25):  # more than one page
        await office.receive(CONFIRMED, event_id=str(number))
    office.post.down, office.post.faults = False, [KeyError("a bug")]

    await office.sweep()
    assert len(office.post.sent) == 24
