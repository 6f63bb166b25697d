"""The rules of failpoints, by which the crash tests find them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.points import Point, Shot, points, rounds, shots

NAME = re.compile(r"[a-z]+\.[a-z]+(-[a-z]+)*\.(before|after)")


def test_names_are_of_one_form_and_each_is_used_once() -> None:
    names = Counter(point.name for point in points())
    assert [name for name in names if not NAME.fullmatch(name)] == []
    assert [name for name, count in names.items() if count > 1] == []


def test_whoever_comes_before_comes_after() -> None:
    names = {point.name for point in points()}
    steps = {name.rpartition(".")[0] for name in names}
    assert names == {f"{step}.{side}" for step in steps for side in ("before", "after")}


def test_every_domain_has_points_of_its_own_and_those_of_the_runtime() -> None:
    own = {"users", "products", "orders", "payments", "notifications"}
    found = shots(points())
    assert own <= {shot.part for shot in found if shot.point.startswith(f"{shot.part}.")}
    for point in ("sqlite.commit.after", "outbox.publish.before", "event.handle.after", "rpc.answer.before"):
        assert own <= {shot.part for shot in found if shot.point == point}


def test_a_new_point_is_found_where_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "functions/orders").mkdir(parents=True)
    source = tmp_path / "functions/orders/service.py"
    source.write_text('def place() -> None:\n    failpoint("orders.new.before")\n')
    assert points(tmp_path) == [Point("orders.new.before", "functions/orders/service.py", 2)]
    assert shots(points(tmp_path), tmp_path) == [Shot("orders", "orders.new.before")]


def test_a_block_has_a_point_before_it_and_one_after_it(tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway/block.py").write_text('with failpoints("gateway.new"):\n    pass\n')
    assert [point.name for point in points(tmp_path)] == ["gateway.new.before", "gateway.new.after"]


def test_a_name_that_is_no_literal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway/computed.py").write_text('failpoint("a." + "b.before")\n')
    with pytest.raises(ValueError, match=r"gateway/computed\.py:1: a failpoint's name must be a literal"):
        points(tmp_path)


def test_rounds_hold_every_shot_once_and_no_part_twice() -> None:
    wanted = [Shot(part, f"{part}.step.before") for part in "aaabbc"]
    packed = rounds(wanted, 2)
    assert sorted(shot for together in packed for shot in together) == sorted(wanted)
    assert all(len({shot.part for shot in together}) == len(together) <= 2 for together in packed)
