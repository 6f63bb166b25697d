"""Orders from the cart to their end, over HTTP."""

import asyncio
import time

import pytest

from knative.local.demo.shop import FINAL, Person, Refused, Shop
from knative.local.demo.stories import eventually
from tests.e2e.conftest import MakeProduct


async def stock_comes_to(shop: Shop, product_id: str, on_hand: int, reserved: int = 0) -> None:
    async def matches() -> bool:
        stock = await shop.stock(product_id)
        return bool(stock["on_hand"] == on_hand and stock["reserved"] == reserved)

    await eventually(matches, f"{on_hand} on hand and {reserved} reserved of {product_id}")


async def mailbox_has(shop: Shop, who: Person, template: str) -> None:
    async def there() -> bool:
        return any(m["template"] == template for m in await shop.all("/v1/notifications", who))

    await eventually(there, f"the e-mail {template}")


async def test_a_paid_order_is_confirmed_and_its_buyer_is_told(
    shop: Shop, customer: Person, make_product: MakeProduct
) -> None:
    product = await make_product(on_hand=5)
    placed = await shop.order(customer, {product["id"]: 2})
    order = await shop.settled(customer, placed["id"])
    payment = await shop.payment(customer, order["id"])

    assert placed["status"] in {"PLACED", "RESERVED", "CONFIRMED"}
    assert [step["status"] for step in order["timeline"]] == ["PLACED", "RESERVED", "CONFIRMED"]
    assert order["total"] == {"amount": 2500, "currency": "EUR"}
    assert payment is not None
    assert payment["status"] == "CAPTURED"
    assert payment["captured"] == order["total"]
    await stock_comes_to(shop, product["id"], 3)
    await mailbox_has(shop, customer, "order_confirmed")


@pytest.mark.parametrize(
    ("token", "reason"),
    [("tok_declined", "PAYMENT_DECLINED"), ("tok_insufficient_funds", "INSUFFICIENT_FUNDS")],
)
async def test_a_declined_card_cancels_the_order_and_frees_its_stock(
    shop: Shop, customer: Person, make_product: MakeProduct, token: str, reason: str
) -> None:
    product = await make_product(on_hand=5)
    placed = await shop.order(customer, {product["id"]: 2}, token)
    order = await shop.settled(customer, placed["id"])

    assert (order["status"], order["timeline"][-1]["reason"]) == ("CANCELLED", reason)
    await stock_comes_to(shop, product["id"], 5)
    await mailbox_has(shop, customer, "order_cancelled")


@pytest.mark.parametrize("token", ["tok_flaky", "tok_timeout", "tok_slow"])
async def test_a_provider_in_trouble_delays_the_order_and_charges_once(
    shop: Shop, customer: Person, admin: Person, make_product: MakeProduct, token: str
) -> None:
    product = await make_product()
    placed = await shop.order(customer, {product["id"]: 1}, token)
    order = await shop.settled(customer, placed["id"], seconds=60)
    payment = await shop.payment(customer, order["id"])
    assert payment is not None
    ledger = await shop.all("/v1/admin/payments/ledger", admin)
    charges = [
        entry
        for entry in ledger
        if entry["payment_id"] == payment["id"] and entry["kind"] == "charge" and entry["outcome"] == "succeeded"
    ]

    assert order["status"] == "CONFIRMED"
    assert [charge["amount"] for charge in charges] == [order["total"]]


async def test_an_order_of_several_lines_takes_all_or_nothing(
    shop: Shop, customer: Person, make_product: MakeProduct
) -> None:
    plenty, scarce = await make_product(on_hand=10), await make_product(on_hand=1)
    placed = await shop.order(customer, {plenty["id"]: 3, scarce["id"]: 2})
    order = await shop.settled(customer, placed["id"])

    assert (order["status"], order["timeline"][-1]["reason"]) == ("CANCELLED", "OUT_OF_STOCK")
    await stock_comes_to(shop, plenty["id"], 10)
    await stock_comes_to(shop, scarce["id"], 1)


async def test_a_cancelled_order_gives_money_and_stock_back(
    shop: Shop, customer: Person, make_product: MakeProduct
) -> None:
    product = await make_product(on_hand=5)
    placed = await shop.order(customer, {product["id"]: 2})
    await shop.settled(customer, placed["id"])
    status, order, _ = await shop.raw(
        "POST", f"/v1/orders/{placed['id']}/cancel", who=customer, json={"reason": "CHANGED_MY_MIND"}
    )

    async def refunded() -> bool:
        payment = await shop.payment(customer, placed["id"])
        return payment is not None and payment["refunded"] == placed["total"]

    assert (status, order["status"]) == (202, "CANCELLED")
    await eventually(refunded, "the whole amount refunded")
    await stock_comes_to(shop, product["id"], 5)
    await mailbox_has(shop, customer, "payment_refunded")


async def test_an_order_is_shipped_and_delivered_by_an_administrator(
    shop: Shop, customer: Person, admin: Person, make_product: MakeProduct
) -> None:
    product = await make_product()
    placed = await shop.order(customer, {product["id"]: 1})
    await shop.settled(customer, placed["id"])
    with pytest.raises(Refused) as refused:
        await shop.call("POST", f"/v1/orders/{placed['id']}/ship", who=customer)
    await shop.call("POST", f"/v1/orders/{placed['id']}/ship", who=admin)
    delivered = await shop.call("POST", f"/v1/orders/{placed['id']}/deliver", who=admin)

    assert refused.value.status == 403
    assert delivered["status"] == "DELIVERED"
    await mailbox_has(shop, customer, "order_shipped")
    with pytest.raises(Refused) as too_late:
        await shop.call("POST", f"/v1/orders/{placed['id']}/cancel", who=customer, json={"reason": "LATE"})
    assert (too_late.value.status, too_late.value.reason) == (409, "ILLEGAL_TRANSITION")


async def test_an_order_can_be_followed_as_server_sent_events(
    shop: Shop, customer: Person, make_product: MakeProduct
) -> None:
    product = await make_product()
    placed = await shop.order(customer, {product["id"]: 1}, "tok_declined")
    status, text, headers = await shop.raw("GET", f"/v1/orders/{placed['id']}/stream", who=customer)

    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert text.count("event: order") >= 1
    assert '"CANCELLED"' in text.strip().splitlines()[-1]


async def test_a_partial_refund_never_exceeds_what_was_captured(
    shop: Shop, customer: Person, admin: Person, make_product: MakeProduct
) -> None:
    product = await make_product()
    order = await shop.settled(customer, (await shop.order(customer, {product["id"]: 2}))["id"])
    payment = await shop.payment(customer, order["id"])
    assert payment is not None
    path = f"/v1/payments/{payment['id']}/refunds"

    async def refund(amount: int, key: str) -> int:
        body = {"amount": {"amount": amount, "currency": "EUR"}}
        return (await shop.raw("POST", path, who=admin, json=body, headers={"idempotency-key": key}))[0]

    # Keys are the administrator's, and are remembered for a day: those of an earlier run would be refused.
    keys = [f"refund-{order['id']}-{n}" for n in range(5)]
    statuses = await asyncio.gather(*[refund(1000, key) for key in keys])
    assert sorted(statuses) == [201, 201, 409, 409, 409]
    assert await refund(1000, keys[statuses.index(201)]) == 201
    payment = await shop.payment(customer, order["id"])
    assert payment is not None
    assert (payment["status"], payment["refunded"]["amount"]) == ("PARTIALLY_REFUNDED", 2000)


async def test_200_orders_at_once_for_50_pieces_sell_exactly_50(
    shop: Shop, customer: Person, admin: Person, make_product: MakeProduct
) -> None:
    product = await make_product(on_hand=50)
    placed = await asyncio.gather(*[shop.order(customer, {product["id"]: 1}) for _ in range(200)])
    orders = await asyncio.gather(*[shop.settled(customer, o["id"], seconds=90) for o in placed])
    confirmed = {order["id"] for order in orders if order["status"] == "CONFIRMED"}
    reasons = {order["timeline"][-1]["reason"] for order in orders if order["id"] not in confirmed}

    assert (len(confirmed), len(orders) - len(confirmed), reasons) == (50, 150, {"OUT_OF_STOCK"})
    await stock_comes_to(shop, product["id"], 0)
    ledger = await shop.all("/v1/admin/payments/ledger", admin)
    ours = {f"pay_{order['id'][4:]}" for order in orders}
    charged = [e["payment_id"] for e in ledger if e["payment_id"] in ours and e["outcome"] == "succeeded"]
    assert sorted(charged) == sorted(f"pay_{order_id[4:]}" for order_id in confirmed)


async def test_the_same_order_sent_50_times_at_once_is_one_order(
    shop: Shop, customer: Person, make_product: MakeProduct
) -> None:
    product = await make_product(on_hand=100)
    placed = await asyncio.gather(*[shop.order(customer, {product["id"]: 1}, key="the-same-key") for _ in range(50)])

    assert len({order["id"] for order in placed}) == 1
    await shop.settled(customer, placed[0]["id"])
    assert len(await shop.all("/v1/orders", customer)) == 1
    with pytest.raises(Refused) as reused:
        await shop.order(customer, {product["id"]: 2}, key="the-same-key")
    assert (reused.value.status, reused.value.reason) == (422, "IDEMPOTENCY_KEY_REUSED")


async def test_a_deleted_account_is_erased_everywhere(
    shop: Shop, customer: Person, admin: Person, make_product: MakeProduct
) -> None:
    product = await make_product()
    order = await shop.settled(customer, (await shop.order(customer, {product["id"]: 1}))["id"])
    await mailbox_has(shop, customer, "order_confirmed")
    await shop.call("DELETE", "/v1/users/me", who=customer)

    async def request_purge() -> bool:
        kept = await shop.call("GET", f"/v1/orders/{order['id']}", who=admin)
        return not (kept.get("shipping_address") or {}).get("name")

    await eventually(request_purge, "the shipping address erased")
    with pytest.raises(Refused) as refused:
        await shop.login(customer.email, customer.password)
    assert refused.value.status == 401


async def test_a_busy_shop_settles_every_order(shop: Shop, make_product: MakeProduct) -> None:
    """A mix of cards, cancels and several customers: every order ends, and stock and money add up."""
    product = await make_product(on_hand=1000)
    people = await asyncio.gather(*[shop.register() for _ in range(4)])
    tokens = ["tok_ok", "tok_declined", "tok_flaky", "tok_timeout", "tok_insufficient_funds"]

    async def live(number: int) -> tuple[int, int]:
        who = people[number % len(people)]
        placed = await shop.order(who, {product["id"]: 1}, tokens[number % len(tokens)])
        if number % 3 == 0:
            await shop.raw("POST", f"/v1/orders/{placed['id']}/cancel", who=who, json={"reason": "RANDOM"})
        order = await shop.settled(who, placed["id"], seconds=90)
        assert order["status"] in FINAL
        return await net_money(shop, who, order)

    sold = 0
    for pieces, kept in await asyncio.gather(*[live(number) for number in range(60)]):
        assert kept == pieces * product["price"]["amount"]
        sold += pieces
    await stock_comes_to(shop, product["id"], 1000 - sold)


async def net_money(shop: Shop, who: Person, order: dict[str, object]) -> tuple[int, int]:
    """Pieces sold by a settled order and what was kept for them, once refunds have gone through."""
    sold = 1 if order["status"] == "CONFIRMED" else 0
    deadline = time.monotonic() + 60
    while True:
        payment = await shop.payment(who, str(order["id"]))
        kept = payment["captured"]["amount"] - payment["refunded"]["amount"] if payment else 0
        if (kept > 0) == bool(sold) or time.monotonic() > deadline:
            return sold, kept
        await asyncio.sleep(0.1)


async def test_an_order_that_costs_nothing_is_confirmed_and_nobody_is_charged(
    shop: Shop, customer: Person, admin: Person, make_product: MakeProduct
) -> None:
    product = await make_product(on_hand=5)
    free = {"price": {"amount": 0, "currency": "EUR"}}
    await shop.call("PATCH", f"/v1/products/{product['id']}", who=admin, json=free)
    placed = await shop.order(customer, {product["id"]: 2})
    order = await shop.settled(customer, placed["id"])
    payment = await shop.payment(customer, order["id"])

    assert (order["status"], order["total"]["amount"]) == ("CONFIRMED", 0)
    assert payment is not None
    assert (payment["status"], payment["captured"]["amount"]) == ("CAPTURED", 0)
    assert all(entry["payment_id"] != payment["id"] for entry in await shop.all("/v1/admin/payments/ledger", admin))
    await stock_comes_to(shop, product["id"], 3)
    await shop.call("POST", f"/v1/orders/{order['id']}/cancel", who=customer, json={})
    await stock_comes_to(shop, product["id"], 5)


async def test_a_sale_between_reading_and_setting_stock_is_not_overwritten(
    shop: Shop, customer: Person, admin: Person, make_product: MakeProduct
) -> None:
    product = await make_product(on_hand=5)
    path = f"/v1/products/{product['id']}/stock"
    _, _, read = await shop.raw("GET", path)
    order = await shop.order(customer, {product["id"]: 2})
    await shop.settled(customer, order["id"])
    await stock_comes_to(shop, product["id"], 3)

    stale = {"if-match": read["ETag"]}
    status, _, _ = await shop.raw("PUT", path, who=admin, headers=stale, json={"on_hand": 25})
    assert status == 412
    for _ in range(2):
        key = {"idempotency-key": f"delivery-{product['id']}"}
        body = {"delta": 20, "reason": "Delivery 17"}
        await shop.call("POST", f"{path}/adjustments", who=admin, headers=key, json=body)
    assert (await shop.stock(product["id"]))["on_hand"] == 23
    ledger = await shop.all(f"{path}/adjustments", admin)
    assert [(entry["kind"], entry["delta"], entry["on_hand"]) for entry in ledger] == [
        ("ADJUSTMENT", 20, 23),
        ("CORRECTION", 5, 5),
    ]
