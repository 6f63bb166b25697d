"""`make pin-others` pins each image of others that production runs, and is built from, in one command."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from requirements.images import files, pin

ROOT = Path(__file__).parents[1]
REFERENCE = re.compile(r"^\s+(?:- )?image: (\S+)|^ARG PYTHON_IMAGE=(\S+)", re.MULTILINE)
BUILDER = """#!{python}
import hashlib, sys
image = sys.argv[-1]
if sys.argv[1] != "pull":
    print(image.rpartition(":")[0] + "@sha256:" + hashlib.sha256(image.encode()).hexdigest())
elif image.startswith("grafana/") and {offline}:
    sys.exit("no such host")
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the files that name images, without the digests that they may have."""
    for path in files(ROOT):
        copy = tmp_path / "tree" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(re.sub(r"@sha256:[0-9a-f]{64}", "", path.read_text()))
    return tmp_path / "tree"


def builder(tmp_path: Path, name: str, *, offline: bool = False) -> str:
    """A program that answers as docker, podman or buildah do, each image having the digest of its name."""
    program = tmp_path / name
    program.write_text(BUILDER.format(python=sys.executable, offline=offline))
    program.chmod(0o755)
    return str(program)


def references(root: Path) -> set[str]:
    """The images of others that are named."""
    found = {either[0] or either[1] for path in files(root) for either in REFERENCE.findall(path.read_text())}
    return {reference for reference in found if "/shop/" not in reference}


@pytest.mark.parametrize("name", ["docker", "podman", "buildah"])
def test_each_image_of_others_is_pinned_and_keeps_its_tag(tree: Path, tmp_path: Path, name: str) -> None:
    before = references(tree)
    assert {"python:3.11-slim"} < before
    pin(builder(tmp_path, name), tree)
    assert references(tree) == {f"{each}@sha256:{sha256(each.encode()).hexdigest()}" for each in before}
    assert pin(builder(tmp_path, name), tree) == []


def test_where_one_cannot_be_pulled_nothing_is_changed(tree: Path, tmp_path: Path) -> None:
    before = references(tree)
    with pytest.raises(subprocess.CalledProcessError):
        pin(builder(tmp_path, "docker", offline=True), tree)
    assert references(tree) == before


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_pinning_all_pins_these_too() -> None:
    command = ["make", "-n", "pin-all", "BUILDER=docker"]
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-m requirements.images" in planned
