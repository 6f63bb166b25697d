"""What sets a cluster up makes each secret once, in an order that pods can rely on."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from knative.setup.secrets import fill

ADMIN = "admin@shop.local"


class FakeSecrets:
    """Two empty Secrets, and the order in which they were written."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, bytes]] = {"admin": {}, "service-key": {}}
        self.written: list[str] = []

    def keys(self, name: str) -> set[str]:
        return set(self.data[name])

    def add(self, name: str, entries: Mapping[str, bytes]) -> None:
        self.data[name] |= entries
        self.written.append(name)


def test_the_key_comes_last_because_pods_wait_for_it_and_then_need_the_administrator() -> None:
    cluster = FakeSecrets()
    assert fill(cluster, ADMIN) == ["admin", "service-key"]
    assert cluster.written == ["admin", "service-key"]
    assert cluster.data["admin"]["email"] == ADMIN.encode()
    assert len(cluster.data["admin"]["password"]) >= 24
    key = load_pem_private_key(cluster.data["service-key"]["service.pem"], None)
    assert isinstance(key, Ed25519PrivateKey)


def test_what_is_there_is_left_alone() -> None:
    cluster = FakeSecrets()
    fill(cluster, ADMIN)
    before = {name: dict(entries) for name, entries in cluster.data.items()}
    assert fill(cluster, "somebody.else@shop.local") == []
    assert cluster.data == before


def test_what_an_interrupted_run_left_out_is_made_by_the_next() -> None:
    cluster = FakeSecrets()
    cluster.add("admin", {"email": ADMIN.encode(), "password": b"kept"})
    assert fill(cluster, ADMIN) == ["service-key"]
    assert cluster.data["admin"]["password"] == b"kept"


def test_two_clusters_share_no_secret() -> None:
    one, other = FakeSecrets(), FakeSecrets()
    fill(one, ADMIN)
    fill(other, ADMIN)
    assert one.data["admin"]["password"] != other.data["admin"]["password"]
    assert one.data["service-key"] != other.data["service-key"]
