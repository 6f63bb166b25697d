"""What a pod next to the platform, or one of the platform's own, may not read."""

from __future__ import annotations

import hashlib

import pytest

from knative.local.demo.shop import Person, Shop
from tests.attack.cluster import PLATFORM, Attacker, Cluster, run_in
from tests.conftest import MakeProduct

DEAD_LETTERS = "http://dead-letters.shop.svc.cluster.local"
DATABASE = "dynamodb.shop.svc.cluster.local"
KEYS = ("users", "products", "orders", "payments", "notifications", "gateway")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/entries"),
        ("GET", "/entries/dlq_" + "0" * 32),
        ("POST", "/replay"),
        ("POST", "/entries/dlq_" + "0" * 32 + "/replay"),
        ("DELETE", "/entries?all=true"),
    ],
)
def test_nobody_lists_replays_or_discards_dead_letters(attacker: Attacker, method: str, path: str) -> None:
    for token in ("", "Bearer garbage"):
        headers = {"authorization": token} if token else {}
        status, answer = attacker.request(DEAD_LETTERS + path, method, headers=headers)
        assert status in (0, 401, 403), answer


@pytest.mark.usefixtures("network_policies")
def test_no_pod_but_the_domains_reaches_the_database(cluster: Cluster, attacker: Attacker) -> None:
    if not cluster.kubectl("get", "service", "-n", PLATFORM, "--ignore-not-found", "dynamodb"):
        pytest.skip("the platform's database is not in this cluster")
    assert not attacker.run("connect", host=DATABASE, port=8000)["connected"]


async def test_a_pod_holds_its_own_private_key_and_no_others(
    cluster: Cluster, shop: Shop, customer: Person, make_product: MakeProduct
) -> None:
    order = await shop.order(customer, {(await make_product())["id"]: 1})
    await shop.settled(customer, order["id"], status="CONFIRMED", seconds=60)
    await shop.patiently("GET", "/v1/notifications", who=customer)
    digests = {name: _digest(cluster.secret(f"service-key-{name}")["service.pem"]) for name in KEYS}
    looked_into = set()
    for pod in cluster.get("pods", "-n", PLATFORM, "-l", "serving.knative.dev/service")["items"]:
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]:
            part = pod["metadata"]["labels"]["app.kubernetes.io/name"]
            names = [each["name"] for each in pod["spec"]["containers"]]
            (container,) = set(names) & {"rpc", "events", "gateway"}
            found = run_in(cluster, PLATFORM, pod["metadata"]["name"], container, "secrets")
            held = {name for name, digest in digests.items() if digest in found["variables"]}
            assert held == {part}, pod["metadata"]["name"]
            assert not found["token"], f"{part} may call the API server"
            looked_into.add(part)
    assert looked_into == set(KEYS)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
