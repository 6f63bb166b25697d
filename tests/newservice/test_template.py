"""On a copy of the tree: a service from the template passes every check at once, and its removal leaves no trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = "teapots"  # nobody has a service of this name
SECONDS = 300
WHOLE = "SHOP_WHOLE_NEW_SERVICE"


class Copy:
    """A copy of the sources under version control, with the same environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        (folder / ".venv").symlink_to(Path(sys.prefix))
        if (ROOT / ".mypy_cache").is_dir():  # spares most of a minute
            shutil.copytree(ROOT / ".mypy_cache", folder / ".mypy_cache", ignore_dangling_symlinks=True)
        self.run("git", "init", "-q")
        self.run("git", "add", "-A")
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        self.run("git", *identity, "commit", "-q", "-m", "before")

    def run(self, *command: str, seconds: float = SECONDS) -> str:
        """What a command prints; fails with it unless it succeeds."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "MAKE"))}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}"
        return done.stdout

    def python(self, *arguments: str) -> str:
        """The same for a Python module."""
        return self.run(sys.executable, "-m", *arguments)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs the sources in git")
    if not list((ROOT / ".venv").glob(".ready-*")):
        pytest.skip("needs the environment that make sets up, in .venv")
    return Copy(tmp_path_factory.mktemp("tree"))


def test_a_new_service_passes_every_check_and_goes_without_a_trace(copy: Copy) -> None:
    said = copy.run("make", "new-service", f"NAME={NAME}")
    assert f"gRPC shop.{NAME}.v1.Teapots" in said

    copy.python("ruff", "check", ".")
    copy.python("ruff", "format", "--check", ".")
    copy.python("mypy", f"functions/{NAME}", "events/catalog.py", "functions/runtime/settings.py")
    checks = [
        f"functions/{NAME}",
        "tests/manifests",
        "tests/test_architecture.py",
        "events/tests/test_schemas.py",
    ]
    chosen = f"{NAME} or manifests or test_the_ or asyncapi"
    passed = copy.python("pytest", "-q", "-p", "no:cacheprovider", *checks, "-k", chosen)
    assert " passed" in passed

    assert f"{NAME} is gone.\n" in copy.run("make", "remove-service", f"NAME={NAME}")
    assert copy.run("git", "status", "--porcelain") == ""


@pytest.mark.skipif(WHOLE not in os.environ, reason="make test-new-service: minutes")
def test_the_whole_platform_passes_its_checks_with_a_new_service_and_runs_it(copy: Copy) -> None:
    copy.run("make", "new-service", f"NAME={NAME}")
    copy.run("make", "lint", seconds=600)
    copy.run("make", "test-unit", "ARGS=--ignore=tests/newservice", seconds=1200)
    copy.run("make", "test-integration", seconds=600)
    copy.python("tests.newservice.story", NAME)
    copy.run("make", "remove-service", f"NAME={NAME}")
    assert copy.run("git", "status", "--porcelain") == ""
