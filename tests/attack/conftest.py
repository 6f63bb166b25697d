"""The platform on a cluster, with attackers in its namespace and in one beside it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attack.cluster import PLATFORM, Attacker, Cluster, start
from tests.e2e.platform import Platform

_ELSEWHERE = "shop-attack"
_NEEDED = ("KUBECONFIG", "E2E_BASE_URL", "E2E_HOST")
_SETTLING_SECONDS = 10


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here as an attack."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.attack)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    missing = [name for name in _NEEDED if not os.environ.get(name)]
    if missing:
        pytest.skip(f"needs the platform on a cluster: set {', '.join(missing)}")
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    return Cluster()


@pytest.fixture(scope="session")
def platform(cluster: Cluster) -> Platform:
    """The platform at E2E_BASE_URL, with the administrator that its own Secret names."""
    admin = cluster.secret("admin")
    return Platform(os.environ["E2E_BASE_URL"], os.environ["E2E_HOST"], admin["email"], admin["password"])


@pytest.fixture(scope="session")
def attackers(cluster: Cluster) -> Iterator[dict[str, Attacker]]:
    """Attackers by where their pods are: `inside` the platform's namespace, or `outside` of it."""
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _ELSEWHERE}})
    try:
        yield {
            "inside": start(cluster, PLATFORM, "attacker"),
            "outside": start(cluster, _ELSEWHERE, "attacker"),
        }
    finally:
        cluster.delete("pod", "attacker", "-n", PLATFORM)
        cluster.delete("namespace", _ELSEWHERE)


@pytest.fixture(params=["inside", "outside"])
def attacker(request: pytest.FixtureRequest, attackers: dict[str, Attacker]) -> Attacker:
    return attackers[request.param]


@pytest.fixture
def outsider(attackers: dict[str, Attacker]) -> Attacker:
    return attackers["outside"]


@pytest.fixture(scope="session")
def _enforced(cluster: Cluster, attackers: dict[str, Attacker]) -> bool:
    """Whether the network plugin enforces NetworkPolicies: whether one keeps a pod from the ingress."""
    walled = start(cluster, _ELSEWHERE, "walled")
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "walled", "namespace": _ELSEWHERE},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "walled"}},
            "policyTypes": ["Egress"],
        },
    }
    address = cluster.get("service", "istio-ingressgateway", "-n", "istio-system")["spec"]["clusterIP"]
    assert attackers["outside"].run("connect", host=address, port=80)["connected"]
    assert walled.run("connect", host=address, port=80)["connected"]
    cluster.apply(policy)
    deadline = time.monotonic() + _SETTLING_SECONDS
    while walled.run("connect", host=address, port=80)["connected"]:
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True


@pytest.fixture
def network_policies(_enforced: bool) -> None:
    """Skip where NetworkPolicies are accepted and not enforced."""
    if not _enforced:
        pytest.skip("the cluster's network plugin does not enforce NetworkPolicies")
