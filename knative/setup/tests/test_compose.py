"""What compose.yaml's containers are given: secrets, once, and the broker's configuration by the manifests."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
import yaml

from knative.local.broker.config import load
from knative.local.manifests import ManifestError
from knative.local.ports import DOMAINS
from knative.setup import compose

BASE = Path(__file__).parents[2] / "base"
ADMIN = "admin@shop.local"


def test_the_broker_delivers_to_the_containers_by_their_names(tmp_path: Path) -> None:
    compose.prepare(BASE, tmp_path, ADMIN)
    (triggers,) = load((tmp_path / "broker" / "broker.yaml").read_text()).triggers.values()
    urls = {trigger.key: trigger.subscriber_url for trigger in triggers}
    assert urls["shop/orders-events"] == "http://orders:8082"
    assert urls["shop/payments-events"] == "http://payments:8084"
    assert {trigger.delivery.dead_letter_url for trigger in triggers} == {"http://broker:8090/dead-letters"}


def test_secrets_are_made_once_and_are_for_nobody_else_to_read(tmp_path: Path) -> None:
    keys = [f"service-key-{name}" for name in (*DOMAINS, "gateway")]
    assert sorted(compose.prepare(BASE, tmp_path, ADMIN)) == sorted(["admin", *keys, "service-keys"])
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "broker.yaml"]
    assert {path.name for path in files} == {"email", "password", "service.pem", "jwks.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    made = {path: path.read_bytes() for path in files}
    assert compose.prepare(BASE, tmp_path, ADMIN) == []
    assert {path: path.read_bytes() for path in files} == made


def test_the_sweeps_tick_goes_to_the_brokers_container() -> None:
    (tick,) = compose.local(BASE).ticks()
    assert (tick.sink, tick.source) == (
        "http://broker:8090/shop/default",
        "/apis/v1/namespaces/shop/pingsources/sweep",
    )


def test_a_schedule_that_is_none_is_named_at_once(tmp_path: Path) -> None:
    ping = yaml.safe_load_all((BASE / "eventing.yaml").read_text())
    broken = [{**d, "spec": {**d["spec"], "schedule": "often"}} for d in ping if d["kind"] == "PingSource"]
    (tmp_path / "eventing.yaml").write_text(yaml.safe_dump_all(broken))
    (tmp_path / "kustomization.yaml").write_text("resources: [eventing.yaml]\n")
    with pytest.raises(ManifestError, match="often"):
        asyncio.run(compose.tick(tmp_path))
