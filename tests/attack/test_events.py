"""Events that were made up in a pod: no payment is believed, wherever it is posted and whoever's key signs it."""

from __future__ import annotations

import pytest

from events.catalog import Money, PaymentCaptured
from events.service_keys import PrivateKey
from functions.runtime.ids import uuid7
from functions.runtime.tests.support import posted
from knative.local.demo.shop import Person, Shop
from knative.local.demo.stories import eventually
from tests.attack.cluster import INGRESS, Attacker, Cluster, key_of
from tests.conftest import MakeProduct

BROKER = "http://broker-ingress.knative-eventing.svc.cluster.local/shop/default"
SERVICE = "http://orders-events.shop.svc.cluster.local/"
DENIED = (0, 403)
"""Nothing answers, or what answers refuses: the network, the mesh or the service."""


def forge(cluster: Cluster, event: PaymentCaptured, forger: str) -> tuple[dict[str, str], str]:
    """Return headers and body of an event of which all is right but the signature."""
    key = key_of(cluster, "products") if forger == "another service's key" else PrivateKey.generate("payments")
    headers, body = posted(event, uuid7(), key)
    if forger == "unsigned":
        del headers["ce-signature"]
    return headers, body.decode()


@pytest.mark.parametrize("forger", ["unsigned", "a stranger's key", "another service's key"])
async def test_a_forged_payment_confirms_no_order(
    attacker: Attacker, shop: Shop, customer: Person, admin: Person, make_product: MakeProduct, forger: str
) -> None:
    product = await make_product()
    order = await shop.order(customer, {product["id"]: 1}, token="tok_declined")
    total = Money(order["total"]["amount"], order["total"]["currency"])
    paid = PaymentCaptured(order_id=order["id"], payment_id="pay_" + order["id"][4:], amount=total)

    headers, data = forge(attacker.cluster, paid, forger)
    status, answer = attacker.request(SERVICE, "POST", headers=headers, body=data)
    assert status in DENIED, answer

    headers, data = forge(attacker.cluster, paid, forger)
    status, answer = attacker.request(BROKER, "POST", headers=headers, body=data)
    assert status in (*DENIED, 202), answer
    if status == 202:  # nothing keeps the attacker from the broker, so the subscriber has to refuse

        async def refused() -> bool:
            letters = await shop.all(f"/v1/admin/dead-letters?type={paid.TYPE}", admin)
            return any(letter["event_id"] == headers["ce-id"] for letter in letters)

        await eventually(refused, "a dead letter of the forged event", 60)

    ended = await shop.settled(customer, order["id"], seconds=60)
    assert ended["status"] == "CANCELLED"
    assert "CONFIRMED" not in {entry["status"] for entry in ended["timeline"]}


@pytest.mark.usefixtures("network_policies")
@pytest.mark.parametrize("url", [BROKER, SERVICE])
def test_no_pod_but_a_publisher_reaches_the_broker_or_an_event_function(attacker: Attacker, url: str) -> None:
    status, answer = attacker.request(url, "POST")
    assert status == 0, answer


def test_an_event_function_is_not_reached_through_the_public_ingress(outsider: Attacker) -> None:
    for host in ("orders-events.shop.svc.cluster.local", "orders-events.shop", "orders-events.shop.svc"):
        status, answer = outsider.request(f"http://{INGRESS}/", "POST", headers={"host": host})
        assert status == 404, answer
