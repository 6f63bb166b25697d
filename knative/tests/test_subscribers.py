"""Subscribers that a channel kept although their Trigger is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KUBECTL = """\
#!/bin/sh
# get KIND -n shop -o json: the file of that kind. patch KIND NAME -n shop ...: noted.
case $1 in
  get) exec cat "$CLUSTER/$2" ;;
  patch) shift; for argument; do echo "$argument"; done >> "$CLUSTER/patched" ;;
esac
"""


def subscriber(uid: str) -> dict[str, str]:
    return {"uid": uid, "subscriberUri": f"http://broker-filter.knative-eventing/triggers/shop/{uid}/1"}


def subscription(uid: str, owner: str = "", kind: str = "Trigger") -> dict[str, Any]:
    owners = [{"kind": kind, "uid": owner}] if owner else []
    return {"metadata": {"name": uid, "uid": uid, "ownerReferences": owners}}


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A cluster in which kubectl finds one Trigger, and a channel with the subscribers of three."""
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    names = "gone", "orders", "deleted", "by-hand"
    channel = {
        "metadata": {"name": "default-kne-trigger"},
        "spec": {"subscribers": list(map(subscriber, names))},
    }
    found = {
        "inmemorychannels.messaging.knative.dev": [channel, {"metadata": {"name": "new"}, "spec": {}}],
        "subscriptions.messaging.knative.dev": [
            subscription("orders", "t1"),
            subscription("deleted", "t2"),
            subscription("by-hand"),
        ],
        "triggers.eventing.knative.dev": [{"metadata": {"name": "orders-events", "uid": "t1"}}],
    }
    for kind, items in found.items():
        (tmp_path / kind).write_text(json.dumps({"items": items}))
    return tmp_path


def check(cluster: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{cluster}:{os.environ['PATH']}", "CLUSTER": str(cluster)}
    command = [sys.executable, "-m", "knative.subscribers", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_subscribers_without_a_trigger_are_named(cluster: Path) -> None:
    checked = check(cluster)
    *named, summary = checked.stdout.splitlines()
    assert (checked.returncode, summary) == (1, "2 subscribers without a Trigger")
    assert [line.partition(" (")[2] for line in named] == ["gone) has no Trigger", "deleted) has no Trigger"]
    assert not (cluster / "patched").exists()


def test_they_are_removed_if_the_channel_is_still_as_it_was_read(cluster: Path) -> None:
    assert check(cluster, "--remove").returncode == 0
    kind, name, *_, patch = (cluster / "patched").read_text().splitlines()
    assert (kind, name) == ("inmemorychannels.messaging.knative.dev", "default-kne-trigger")
    assert json.loads(patch.removeprefix("--patch=")) == [
        {"op": "test", "path": "/spec/subscribers/2/uid", "value": "deleted"},
        {"op": "remove", "path": "/spec/subscribers/2"},
        {"op": "test", "path": "/spec/subscribers/0/uid", "value": "gone"},
        {"op": "remove", "path": "/spec/subscribers/0"},
    ]


def test_where_each_subscriber_has_a_trigger_the_check_passes(cluster: Path) -> None:
    (cluster / "inmemorychannels.messaging.knative.dev").write_text('{"items": []}')
    checked = check(cluster)
    assert (checked.returncode, checked.stdout) == (0, "0 subscribers without a Trigger\n")


def test_a_cluster_that_does_not_answer_is_no_clean_one(cluster: Path) -> None:
    (cluster / "triggers.eventing.knative.dev").unlink()
    assert check(cluster).returncode == 2
