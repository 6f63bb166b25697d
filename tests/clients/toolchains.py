"""The generators of clients and the toolchains that compile what they make; `make test-clients` installs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".tools"
STORIES = Path(__file__).parent
GENERATOR = TOOLS / "java/openapi-generator-cli.jar"
LIBRARIES = TOOLS / "java/lib"
NODE = TOOLS / "node/node_modules"
PYTHON = ROOT / ".venv-clients/bin/python"


def need(*commands: str, installed: Path) -> None:
    """Skip the test, and say why, where a toolchain or what `make test-clients` installs is missing."""
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    if not installed.exists():
        pytest.skip(f"{installed.relative_to(ROOT)} is missing: make test-clients installs it")


def run(*command: str | Path, folder: Path, **environ: str) -> str:
    """Run a command that must succeed; return what it wrote to its output."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{command[0]} failed:\n{(done.stdout + done.stderr)[-6000:]}"
    return done.stdout


def openapi_generator(target: str, document: Path, made: Path, *options: str) -> None:
    """Generate a client with openapi-generator."""
    command: list[str | Path] = [
        "java",
        "-jar",
        GENERATOR,
        "generate",
        "-i",
        document,
        "-g",
        target,
        "-o",
        made,
    ]
    leave_out = "apiTests=false,modelTests=false,apiDocs=false,modelDocs=false"
    run(
        *command,
        "--global-property",
        f"apis,models,supportingFiles,{leave_out}",
        *options,
        folder=made.parent,
    )


def java(document: Path, folder: Path) -> list[str | Path]:
    """Generate and compile the Java client; return the command of the story."""
    need("java", "javac", "mvn", installed=GENERATOR)
    client, classes = folder / "client", folder / "classes"
    openapi_generator("java", document, client, "--library", "native")
    sources = sorted((client / "src/main/java").rglob("*.java"))
    path = f"{LIBRARIES}/*"
    run("javac", "-nowarn", "-cp", path, "-d", classes, *sources, STORIES / "java/Story.java", folder=folder)
    return ["java", "-cp", f"{classes}{os.pathsep}{path}", "Story"]


def go(document: Path, folder: Path) -> list[str | Path]:
    """Generate and compile the Go client; return the command of the story."""
    need("java", "mvn", "go", installed=GENERATOR)
    naming = ("--git-host", "shop.test", "--git-user-id", "story", "--git-repo-id", "client")
    openapi_generator("go", document, folder / "client", "--package-name", "shop", *naming)
    (folder / "client/story").mkdir()
    shutil.copy(STORIES / "go/main.go", folder / "client/story")
    made = folder / "story"
    run("go", "build", "-o", made, "./story", folder=folder / "client", GOFLAGS="-mod=mod")
    return [made]


def typescript(document: Path, folder: Path) -> list[str | Path]:
    """Generate and compile the TypeScript client; return the command of the story."""
    need("node", "npm", installed=NODE)
    (folder / "node_modules").symlink_to(NODE)
    (folder / "package.json").write_text('{"type": "module"}')
    for name in ("story.ts", "tsconfig.json"):
        shutil.copy(STORIES / "typescript" / name, folder)
    run(NODE / ".bin/openapi-typescript", document, "-o", folder / "shop.d.ts", folder=folder)
    run(NODE / ".bin/tsc", folder=folder)
    return ["node", folder / "made/story.js"]


def python(document: Path, folder: Path) -> list[str | Path]:
    """Generate the Python client and check its types; return the command of the story."""
    need(installed=PYTHON)
    settings = folder / "settings.yaml"
    settings.write_text("post_hooks: []\npackage_name_override: shop_client\n")
    tool: list[str | Path] = [
        PYTHON,
        "-m",
        "openapi_python_client",
        "generate",
        "--path",
        document,
        "--config",
        settings,
    ]
    said = run(*tool, "--meta", "none", "--output-path", folder / "shop_client", folder=folder)
    assert "Warning" not in said, said
    shutil.copy(STORIES / "python/story.py", folder)
    mypy: list[str | Path] = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        PYTHON,
        "--config-file",
        os.devnull,
    ]
    run(*mypy, folder / "story.py", folder=folder, MYPYPATH=str(folder))
    return [PYTHON, folder / "story.py"]
