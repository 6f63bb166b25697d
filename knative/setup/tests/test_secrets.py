"""What sets a cluster up makes each secret once, in an order that pods can rely on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from events.service_keys import PrivateKey, ServiceKeys
from knative.setup.secrets import announce, fill, fill_id, fill_passwords, retire, switch

ADMIN = "admin@shop.local"
SERVICES = ("orders", "users")
NAMES = ["admin", "service-key-orders", "service-key-users", "service-keys"]


class FakeSecrets:
    """Empty Secrets, and the order in which they were written."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, bytes]] = {name: {} for name in NAMES}
        self.written: list[str] = []

    def entries(self, name: str) -> dict[str, bytes]:
        return dict(self.data[name])

    def add(self, name: str, entries: Mapping[str, bytes]) -> None:
        self.data[name] |= entries
        self.written.append(name)

    def key(self, service: str) -> PrivateKey:
        """A service's present key."""
        return PrivateKey.from_pem(service, self.data[f"service-key-{service}"]["service.pem"].decode())

    def known(self, service: str) -> set[bytes]:
        """The public keys that all have of a service."""
        keys = ServiceKeys.parse(self.data["service-keys"]["jwks.json"].decode())
        return {key.raw for key in keys.of(service)}


def test_public_keys_come_last_because_pods_wait_for_them_and_then_need_the_rest() -> None:
    cluster = FakeSecrets()
    assert fill(cluster, ADMIN, SERVICES) == NAMES
    assert cluster.written == NAMES
    assert cluster.data["admin"]["email"] == ADMIN.encode()
    assert len(cluster.data["admin"]["password"]) >= 24
    for service in SERVICES:
        assert cluster.known(service) == {cluster.key(service).public}


def test_the_store_has_a_password_for_each_domain_and_keeps_it() -> None:
    cluster = FakeSecrets()
    cluster.data |= {"store-admin": {}, "store-orders": {"password": b"kept"}}
    assert fill_passwords(cluster, ["admin", "orders"]) == ["store-admin"]
    assert len(cluster.data["store-admin"]["password"]) >= 24
    assert cluster.data["store-orders"] == {"password": b"kept"}


def test_the_folders_on_a_nodes_volume_are_named_anew_with_each_namespace_and_keep_their_name() -> None:
    names = set()
    for _ in range(2):
        cluster = FakeSecrets()
        cluster.data |= {"volumes": {}}
        assert fill_id(cluster, "volumes") == ["volumes"]
        names.add(cluster.data["volumes"]["id"])
        assert fill_id(cluster, "volumes") == []
    assert len(names) == 2


def test_what_is_there_is_left_alone() -> None:
    cluster = FakeSecrets()
    fill(cluster, ADMIN, SERVICES)
    before = {name: dict(entries) for name, entries in cluster.data.items()}
    assert fill(cluster, "somebody.else@shop.local", SERVICES) == []
    assert cluster.data == before


@pytest.mark.parametrize("done", range(1, 4))
def test_what_an_interrupted_run_left_out_is_made_by_the_next(done: int) -> None:
    whole, cluster = FakeSecrets(), FakeSecrets()
    fill(whole, ADMIN, SERVICES)
    for name in NAMES[:done]:
        cluster.add(name, whole.data[name])
    assert fill(cluster, ADMIN, SERVICES) == NAMES[done:]
    assert cluster.data["admin"]["password"] == whole.data["admin"]["password"]
    for service in SERVICES:
        assert cluster.known(service) == {cluster.key(service).public}


def test_two_clusters_and_two_services_share_no_secret() -> None:
    one, other = FakeSecrets(), FakeSecrets()
    fill(one, ADMIN, SERVICES)
    fill(other, ADMIN, SERVICES)
    assert one.data["admin"]["password"] != other.data["admin"]["password"]
    assert len({cluster.key(service).seed for cluster in (one, other) for service in SERVICES}) == 4


def test_a_key_is_rotated_without_a_moment_in_which_what_is_signed_is_not_known() -> None:
    cluster = FakeSecrets()
    fill(cluster, ADMIN, SERVICES)
    old = cluster.key("orders")
    for _ in range(2):  # a step may be repeated
        announce(cluster, "orders")
        assert cluster.key("orders").seed == old.seed
        assert len(cluster.known("orders")) == 2
    switch(cluster, "orders")
    new = cluster.key("orders")
    for _ in range(2):
        switch(cluster, "orders")
        assert cluster.key("orders").seed == new.seed
        assert new.seed != old.seed
        assert cluster.known("orders") == {old.public, new.public}
    assert fill(cluster, ADMIN, SERVICES) == [], "a start in between changes nothing"
    retire(cluster, "orders")
    assert cluster.known("orders") == {new.public}
    assert cluster.known("users") == {cluster.key("users").public}
    announce(cluster, "orders")
    switch(cluster, "orders")
    assert cluster.key("orders").seed not in {old.seed, new.seed}, "and again"
    assert len(cluster.known("orders")) == 2


def test_a_key_that_nobody_knows_yet_is_not_switched_to() -> None:
    cluster = FakeSecrets()
    fill(cluster, ADMIN, SERVICES)
    with pytest.raises(ValueError, match="announce it first"):
        switch(cluster, "orders")
