"""Following the parts' logs."""

from __future__ import annotations

from pathlib import Path

from knative.local import logs


def test_new_whole_lines_are_handed_on_once_and_old_ones_never(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("old\n")
    seen: list[tuple[str, bytes]] = []
    tail = logs.LogTail(lambda name, line: seen.append((name, line)))
    tail.follow("a", path)
    with path.open("a") as file:
        file.write("one\ntwo\nhal")
    tail.catch_up()
    with path.open("a") as file:
        file.write("f\n")
    tail.catch_up()
    tail.catch_up()
    assert seen == [("a", b"one"), ("a", b"two"), ("a", b"half")]


def test_a_long_log_begins_anew_and_keeps_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    seen: list[bytes] = []
    tail = logs.LogTail(lambda _, line: seen.append(line), kept_bytes=100)
    tail.follow("a", path)
    with path.open("ab", buffering=0) as file:
        for number in range(30):
            file.write(b"line %d\n" % number)
            tail.catch_up()
    assert seen == [b"line %d" % number for number in range(30)]
    assert path.stat().st_size < 100
    assert (tmp_path / "a.log.1").exists()


def test_the_end_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("\n".join(str(n) for n in range(50)))
    assert logs.last_lines(tmp_path / "a.log", 2) == [b"48", b"49"]
    assert logs.last_lines(tmp_path / "none.log", 2) == []
