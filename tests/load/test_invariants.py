"""What the load's report counts, and which broken invariants it finds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.load.__main__ import percentile, rows, table, wrong_money, wrong_stock

MUG = "prd_" + "1" * 32
PAID = {"status": "CONFIRMED", "total": {"amount": 500}, "lines": [{"product_id": MUG, "quantity": 2}]}
CANCELLED = {**PAID, "status": "CANCELLED"}


def entry(order: str, kind: str, amount: int, outcome: str = "succeeded") -> dict[str, Any]:
    return {"payment_id": f"pay_{order[4:]}", "kind": kind, "amount": {"amount": amount}, "outcome": outcome}


def test_what_was_shed_is_no_error_and_has_no_latency() -> None:
    (row,) = rows([("GET /", 10.0, "ok"), ("GET /", 1.0, "shed"), ("GET /", 99.0, "500 INTERNAL")])
    assert (row.ok, row.shed, row.errors) == (1, 1, {"500 INTERNAL": 1})
    assert (row.p50, row.p99, row.longest) == (10.0, 10.0, 10.0)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], share) == value


def test_money_is_conserved_when_exactly_what_stands_is_kept() -> None:
    orders = {"ord_1": PAID, "ord_2": CANCELLED, "ord_3": CANCELLED}
    ledger = [entry("ord_1", "charge", 500), entry("ord_2", "charge", 500), entry("ord_2", "refund", 500)]
    assert wrong_money(orders, [*ledger, entry("ord_3", "charge", 500, "declined")]) == []
    assert len(wrong_money(orders, [*ledger, entry("ord_1", "charge", 500)])) == 1
    assert len(wrong_money(orders, [*ledger, entry("ord_3", "charge", 500)])) == 1
    assert len(wrong_money(orders, ledger[1:])) == 1


@pytest.mark.parametrize(("on_hand", "reserved", "broken"), [(8, 0, 0), (7, 0, 1), (10, 0, 1), (8, 2, 1)])
def test_stock_is_conserved_when_exactly_what_stands_is_missing(on_hand: int, reserved: int, broken: int) -> None:
    after = {MUG: {"on_hand": on_hand, "reserved": reserved}}
    assert len(wrong_stock({"ord_1": PAID, "ord_2": CANCELLED}, {MUG: 10}, after)) == broken


def test_the_report_names_errors_and_broken_invariants() -> None:
    report = {
        "scenario": "crawl",
        "rate": 10.0,
        "minutes": 1.0,
        "requests": [vars(row) for row in rows([("GET /", 1.0, "503 OVERLOADED")])],
        "late_ms_p99": 1.0,
        "orders_acknowledged": 0,
        "seconds": 60.0,
        "settled_after_seconds": 0.0,
        "broken": ["order ord_1 was acknowledged and is lost"],
    }
    text = table(report)
    assert "1 times 503 OVERLOADED" in text
    assert "BROKEN: order ord_1" in text
