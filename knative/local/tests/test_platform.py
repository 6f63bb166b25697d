"""The runner as a person uses it: started, interrupted, killed, started again; with fakes as parts."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from knative.local import ports
from knative.local.tests.platform_process import PlatformProcess, all_gone, eventually

NAMES = {"broker", "gateway", *ports.DOMAINS}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[PlatformProcess]:
    platform = PlatformProcess(tmp_path)
    yield platform
    platform.end()


def test_it_starts_every_part_says_so_and_ends_them_all_on_ctrl_c(platform: PlatformProcess) -> None:
    runner = platform.start_ready()
    eventually(lambda: "Ready in" in platform.text(), platform.text)  # written after the state file
    assert platform.state()["parts"].keys() == NAMES
    for name in NAMES:
        assert any(line.startswith(f"  {name}") and " ready in " in line for line in platform.text().splitlines())
    assert f"{platform.state()['base_url']}/docs" in platform.text()
    assert "\x1b" not in platform.text(), "colours where there is no terminal"
    pids = platform.pids()
    runner.send_signal(signal.SIGINT)
    assert runner.wait(20) == 0, platform.text()
    assert all_gone(pids)
    assert platform.state() == {}


def test_kill_9_of_the_runner_leaves_nothing_behind(platform: PlatformProcess) -> None:
    runner = platform.start_ready()
    pids = platform.pids()
    runner.kill()
    runner.wait()
    eventually(lambda: all_gone(pids), platform.text, seconds=10)


def test_after_kill_9_it_starts_again_on_the_same_ports_and_data(platform: PlatformProcess) -> None:
    offset = _free_offset()
    first = platform.start_ready("--port-offset", str(offset), "--no-seed")
    first.kill()
    first.wait()
    platform.start_ready("--port-offset", str(offset), "--no-seed")


def test_a_part_that_dies_is_restarted_and_the_others_stay(platform: PlatformProcess) -> None:
    platform.start_ready()
    before = platform.state()["parts"]
    os.kill(before["orders"]["pid"], signal.SIGKILL)
    eventually(lambda: _is_back(platform, "orders", before["orders"]["pid"]), platform.text)
    assert "orders        ended (SIGKILL); starts again in 0.25 s" in platform.text()
    after = platform.state()["parts"]
    assert {n: p["pid"] for n, p in after.items() if n != "orders"} == {
        n: p["pid"] for n, p in before.items() if n != "orders"
    }


def test_a_part_that_fails_at_first_is_tried_again(platform: PlatformProcess, tmp_path: Path) -> None:
    platform.start_ready(FAIL_FIRST=str(tmp_path / "failed"))
    assert "ended (exit code 3); starts again" in platform.text()


def test_a_part_that_never_starts_ends_the_run_with_the_end_of_its_log(platform: PlatformProcess) -> None:
    runner = platform.start("--ports", "free", FAIL_FIRST="/nowhere/at/all")
    assert runner.wait(60) == 1
    assert "Not started: " in platform.text()
    assert "FileNotFoundError" in platform.text()


def test_a_stubborn_part_is_killed_by_a_second_ctrl_c(platform: PlatformProcess) -> None:
    runner = platform.start_ready(STUBBORN="yes")
    pids = platform.pids()
    runner.send_signal(signal.SIGINT)
    eventually(lambda: "Stopping." in platform.text(), platform.text)
    runner.send_signal(signal.SIGINT)
    runner.wait(10)
    assert all_gone(pids), platform.text()


def test_a_taken_port_is_named_with_its_holder_before_anything_starts(platform: PlatformProcess) -> None:
    offset = _free_offset()
    with socket.create_server(("127.0.0.1", 8082 + offset)):
        runner = platform.start("--port-offset", str(offset))
        assert runner.wait(20) == 1
    assert f"Port {8082 + offset} (orders) is taken by pid {os.getpid()}" in platform.text()
    assert "--port-offset" in platform.text()
    assert platform.state() == {}


def test_a_second_instance_on_the_same_data_is_refused_even_with_fresh(platform: PlatformProcess) -> None:
    platform.start_ready()
    second = platform.start("--ports", "free", "--fresh")
    assert second.wait(20) == 1
    assert f"Another instance runs on {platform.data}" in platform.text()
    assert "make up ARGS=stop" in platform.text()
    assert platform.state()["ready"]


def test_the_password_is_shown_at_the_first_start_and_never_again(platform: PlatformProcess) -> None:
    first = platform.start_ready()
    eventually(lambda: "Ctrl-C stops" in platform.text(), platform.text)
    assert platform.text().count("(shown this once)") == 1
    first.send_signal(signal.SIGTERM)
    first.wait(20)
    second = platform.start_ready()
    eventually(lambda: platform.text().count("Ctrl-C stops") == 2, platform.text)
    assert platform.text().count("(shown this once)") == 1
    assert "as at the first start (password lost? FRESH=1" in platform.text()
    second.send_signal(signal.SIGTERM)
    second.wait(20)
    password = platform.text().partition("password: ")[2].split()[0]
    for path in platform.data.rglob("*"):
        assert not path.is_file() or password.encode() not in path.read_bytes(), path


def test_fresh_empties_the_data_and_only_that(platform: PlatformProcess) -> None:
    platform.start_ready().send_signal(signal.SIGTERM)
    platform.processes[0].wait(20)
    (platform.data / "store" / "orders.db").touch()
    (platform.data / "somebody-elses").touch()
    platform.start_ready("--ports", "free", "--fresh")
    assert not (platform.data / "store" / "orders.db").exists()
    assert (platform.data / "somebody-elses").exists()


def test_what_is_kept_is_for_its_owner_only_also_in_folders_of_earlier_runs(
    platform: PlatformProcess,
) -> None:
    (platform.data / "store").mkdir(mode=0o755, parents=True)
    platform.start_ready()
    modes = {
        name: stat.S_IMODE((platform.data / name).stat().st_mode) for name in ("store", "broker", "logs", "secrets")
    }
    assert set(modes.values()) == {0o700}, modes


def test_a_services_key_is_made_once_and_for_its_owner_only(platform: PlatformProcess) -> None:
    platform.start_ready().send_signal(signal.SIGTERM)
    key = platform.data / "secrets" / "service-key-orders" / "service.pem"
    made = key.read_bytes()
    platform.processes[0].wait(20)
    platform.start_ready()
    assert key.read_bytes() == made
    assert made.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def _is_back(platform: PlatformProcess, name: str, old_pid: int) -> bool:
    part = platform.state()["parts"][name]
    return bool(part["ready"]) and part["pid"] != old_pid


def _free_offset() -> int:
    for offset in range(20_000, 40_000, 100):
        try:
            ports.check(ports.fixed(ports.DOMAINS, offset))
        except ports.PortTaken:
            continue
        return offset
    raise AssertionError("no free range of ports")
