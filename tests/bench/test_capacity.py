"""Where a service is full, what its scaling target should be, and what a rate of orders needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.bench.capacity import MEASURED, Assumptions, Run, checks, model, needs, read
from tests.bench.footprint import Footprint, event_sizes
from tests.bench.knee import CALLS, STEPS, Step, best, fit, knee, speed_up
from tests.bench.tune import BASE, Target, derive, markdown, retarget

ORDERS = """\
# Why.
nameReference: []
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: orders
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: orders-events
spec:
  template:
    metadata:
      annotations:
        # The busiest one.
        autoscaling.knative.dev/target: "20"
    spec:
      containerConcurrency: 50
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: other
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/target: "30"
    spec:
      containerConcurrency: 0
"""
RUN = Run("here", "cluster", {"platform": 20.0, "store": 5.0, "eventing": 10.0}, 40.0, services={"orders": 14.0})
FOOTPRINT = Footprint({"orders": 1000.0, "products": 500.0}, 300.0, 4000.0, 16.0, 4, 2000.0, "a day")


def law(contention: float, coherency: float = 0.0, noise: float = 0.0) -> list[Step]:
    """Return steps of a service of this law, every other one slower by a share of `noise`."""
    rates = [100 * speed_up(callers, contention, coherency) for callers in STEPS]
    return [
        Step(callers, rate * (1 - noise * (number % 2)), 1.0, 1.0)
        for number, (callers, rate) in enumerate(zip(STEPS, rates, strict=True))
    ]


@pytest.mark.parametrize(("contention", "coherency"), [(0.5, 0.0), (0.2, 0.001), (1.0, 0.0), (0.0, 0.0)])
def test_the_fitted_law_is_the_one_that_the_service_has(contention: float, coherency: float) -> None:
    assert fit(law(contention, coherency)) == pytest.approx((contention, coherency))


def test_the_knee_is_where_the_law_has_nine_tenths_of_its_best_throughput() -> None:
    assert knee(law(1.0)) == 1  # one caller keeps it busy
    assert knee(law(0.5)) == 8
    assert knee(law(0.0)) == 58  # it only waits: 90 % of 64
    callers = knee(law(0.1, 0.01))  # it gets slower after its best
    rates = [speed_up(number, 0.1, 0.01) for number in range(1, 65)]
    assert rates[callers - 2] < 0.9 * max(rates) <= rates[callers - 1]


def test_noise_moves_a_knee_little() -> None:
    assert 6 <= knee(law(0.5, noise=0.2)) <= 10


def test_of_repeated_steps_the_least_disturbed_counts() -> None:
    same = [Step(4, 90.0, 9.0, 1.0), Step(4, 100.0, 5.0, 1.0), Step(4, 20.0, 50.0, 1.0)]
    assert best(same) == same[1]


def test_every_service_of_the_manifests_has_a_call_that_finds_its_knee() -> None:
    named = {
        document["metadata"]["name"]
        for path in BASE.glob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        if document and document.get("apiVersion") == "serving.knative.dev/v1"
    }
    assert named == set(CALLS)


@pytest.mark.parametrize(
    ("service", "measured", "now", "hard", "target"),
    [
        ("products", 16, 50, 0, 16),
        ("users-events", 32, 20, 50, 32),
        ("users-events", 64, 20, 50, 50),
        ("gateway", 16, 100, 0, 100),
        ("payments-events", 16, 10, 20, 16),
        ("payments-events", 32, 10, 20, 20),
    ],
)
def test_a_target_is_the_knee_within_the_hard_bound_and_is_only_raised_where_requests_wait_for_others(
    service: str, measured: int, now: int, hard: int, target: int
) -> None:
    assert derive(service, measured, now, hard) == target


def test_a_manifest_gets_the_targets_of_its_own_services_and_is_otherwise_unchanged() -> None:
    text, targets = retarget(ORDERS, {"orders-events": 8})
    assert targets == [Target("orders-events", 20, 8, 8, 50)]
    assert text == ORDERS.replace('target: "20"', 'target: "8"')
    assert retarget(ORDERS, {}) == (ORDERS, [])


def test_the_table_shows_the_target_now_and_derived_and_what_knative_aims_at() -> None:
    assert "| orders-events | 8 | 20 | **8** | 5.6 | 50 | - |" in markdown([Target("orders-events", 20, 8, 8, 50)])
    assert "| gateway | 8 | 100 | 100 | 70.0 | - | streams" in markdown([Target("gateway", 100, 8, 100, 0)])


def test_needs_grow_with_the_orders_and_keep_a_share_of_each_core_free() -> None:
    small, large = (needs(RUN, FOOTPRINT, rate, Assumptions()) for rate in (100, 1000))
    assert sum(small.cores.values()) == pytest.approx(100 * 0.035 / 0.7)
    assert sum(large.cores.values()) == pytest.approx(10 * sum(small.cores.values()))
    assert (small.pods["orders"], large.pods["orders"]) == (2, 20)
    assert (small.client_connections, large.client_connections) == (8, 80)
    assert large.server_connections == 46  # 16,000 statements a second of 2 ms
    assert (small.partitions, large.partitions) == (10, 30)


def test_storage_is_what_stays_three_times_and_what_is_kept_for_a_week() -> None:
    found = needs(RUN, FOOTPRINT, 100, Assumptions(gigabyte_month=1.0))
    assert (found.store_gb_a_day, found.wal_gb_a_day, found.events_gb_a_day) == pytest.approx((12.96, 34.56, 17.28))
    assert found.dollars_for_storage == pytest.approx(3 * (30 * 12.96 + 7 * 2.592 + 7 * 17.28))


def test_a_service_that_is_hardly_used_has_a_pod() -> None:
    found = needs(Run("", "", {"platform": 1.0}, 1.0, services={"users": 0.001}), FOOTPRINT, 1, Assumptions())
    assert found.pods == {"users": 1}


def test_the_first_run_of_a_place_gives_the_share_of_its_cores_and_the_others_are_predicted() -> None:
    runs = [Run("a", "x", {"": 10.0}, 160.0), Run("b", "x", {"": 20.0}, 100.0), Run("c", "y", {"": 100.0}, 10.0)]
    found = checks(runs)
    assert [it.fitted for it in found] == [True, False, True]
    assert [it.predicted for it in found] == pytest.approx([160.0, 80.0, 10.0])
    assert found[1].error == pytest.approx(-0.2)


def test_more_pods_than_a_manifest_allows_are_marked() -> None:
    table = model([needs(RUN, FOOTPRINT, rate, Assumptions()) for rate in (100, 1000)], RUN)
    assert "| pods of orders | 2 | **20** |" in table


def test_runs_are_read_from_the_benchmarks_of_a_cluster_and_of_one_machine(tmp_path: Path) -> None:
    order = {
        "cpu_ms": {"platform": 20.0, "store": 4.0},
        "facts": {
            "containers_ms": {"orders": 9.0, "orders-events": 6.0, "mt-broker": 3.0},
            "to_the_end_per_second": 30,
        },
    }
    cluster, machine = tmp_path / "quiet.json", tmp_path / "bench.json"
    cluster.write_text(json.dumps({"name": "dev", "at": "2026-12-01", "works": {"order": order}}))
    ours = {"rate": 200.0, "cpu_ms": 8.0, "memory_mb": 1.0}
    rows = [{"name": name, "ours": ours, "floor": None} for name in ("checkout, whole saga", "other")]
    machine.write_text(json.dumps([*rows, {"name": "checkout, traced", "ours": ours, "floor": {**ours, "rate": 220}}]))
    (run,) = read(cluster)
    assert (run.cpu_ms, run.rate, run.services) == (24.0, 30, {"orders": 9.0, "orders-events": 6.0})
    assert [(run.cpu_ms, run.rate) for run in read(machine)] == [(8.0, 200.0), (8.0, 220), (8.0, 200.0)]


def test_the_committed_measurements_can_be_read_and_name_their_source() -> None:
    runs = read(MEASURED)
    assert all(run.source for run in runs)
    assert any(run.services for run in runs)


def test_an_order_of_one_product_is_four_events() -> None:
    assert len(event_sizes()) == 4
