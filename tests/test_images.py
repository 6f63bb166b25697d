"""Images hold what they need and nothing else, and run as nobody; builds and skaffold agree on them."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.architecture import domains, imports
from tests.images import ROOT, Dockerfile, context
from tests.manifests.rendered import pods, render

BUILD = re.compile(
    r"-f (?P<file>\S+)\s+(?:--build-arg FUNCTION=(?P<function>\S+))? *-t '?dev\.local/shop/(?P<name>\S+):dev'?"
)
FUNCTIONS = domains(ROOT)
# The distributions that bring each top-level module, by their names in lock files.
DISTRIBUTIONS = {
    module: {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    for module, names in packages_distributions().items()
}


@cache
def builds() -> dict[str, tuple[str, str]]:
    """(Dockerfile, FUNCTION) of each image, as make builds it."""
    command = ["make", "-n", "build-all", "BUILDER=docker"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.replace("\\\n", " ")
    return {found["name"]: (found["file"], found["function"] or "") for found in BUILD.finditer(text)}


def dockerfile(image: str) -> Dockerfile:
    file, function = builds()[image]
    return Dockerfile.parse((ROOT / file).read_text(), FUNCTION=function)


IMAGES = sorted(builds())
SERVED = [image for image in IMAGES if image not in ("e2e", "load")]


def _entry_modules(image: str) -> list[str]:
    if image == "e2e":
        return [f"tests.e2e.{path.stem}" for path in (ROOT / "tests" / "e2e").glob("*.py")]
    words = dockerfile(image).entry_point()
    if "-m" in words:
        module = words[words.index("-m") + 1]
        package = (ROOT / module.replace(".", "/")).is_dir()
        return [f"{module}.__main__" if package else module]
    return [f"functions.{image.removeprefix('functions-')}.main"]


def test_make_builds_an_image_for_each_domain_and_all_else() -> None:
    assert {
        *(f"functions-{domain}" for domain in FUNCTIONS),
        "gateway",
        "dead-letters",
        "setup",
        "e2e",
        "load",
    } == set(IMAGES)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_keeps_the_rules(image: str) -> None:
    assert dockerfile(image).faults() == []


def test_broken_rules_are_named() -> None:
    instructions = """\
FROM alpine AS packages
RUN pip install \\
  aiohttp
FROM packages
ADD . /app
USER root
ENTRYPOINT python3 main.py
"""
    assert Dockerfile.parse(instructions).faults() == [
        "runs as root",
        "is not stopped by SIGTERM",
        "is started by a shell",
        "has another base",
        "installs what is not locked",
        "adds what may come from anywhere",
        "keeps what changes its identity",
        "keeps what installs packages",
    ]


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_imports_is_in_it(image: str) -> None:
    files = dockerfile(image).files()
    modules, others = _reached(image)
    assert len(modules) > 3
    assert [path for path in modules if path not in files] == []
    locked = {name for source in dockerfile(image).sources() for name in _locked(source)}
    assert {name for name in others if not DISTRIBUTIONS[name] & locked} == ELSEWHERE.get(image, set())


# Modules of others that no code runs there. Schemas are changed by the Job `migrate` alone, from the image `setup`. The
# gateway has no store. DynamoDB's tables are not made by a Job. The tests end to end sign nothing and export no spans.
ELSEWHERE = {
    **{f"functions-{domain}": {"alembic", "sqlalchemy"} for domain in FUNCTIONS},
    "gateway": {"alembic", "asyncpg", "botocore", "sqlalchemy"},
    "setup": {"botocore"},
    "e2e": {"nacl", "opentelemetry", "requests"},
}


def _reached(image: str) -> tuple[list[str], set[str]]:
    """Return our files that an image's entry points import, at whatever moment, and the modules of others."""
    todo, ours, others = _entry_modules(image), list[str](), set[str]()
    seen = set[str]()
    while todo:
        module = todo.pop()
        stem = module.replace(".", "/")
        path = next((path for path in (f"{stem}.py", f"{stem}/__init__.py") if (ROOT / path).is_file()), None)
        if path is None or module in seen:
            continue
        seen.add(module)
        ours.append(path)
        for _, imported in imports(ROOT / path):
            todo += [imported, imported.rpartition(".")[0]]
            others |= {imported.partition(".")[0]} & DISTRIBUTIONS.keys()
    return ours, others


def _locked(source: str) -> list[str]:
    if not source.startswith("requirements/"):
        return []
    return re.findall(r"^([\w.-]+)==", (ROOT / source).read_text(), re.MULTILINE)


@pytest.mark.parametrize("image", SERVED)
def test_an_image_holds_no_tests_no_other_domain_and_nothing_that_is_no_source(image: str) -> None:
    files = dockerfile(image).files()
    assert files
    assert not [path for path in files if "tests" in path.split("/") or path.endswith("Dockerfile")]
    mine = builds()[image][1]
    assert not [
        path for path in files for other in FUNCTIONS if other != mine and path.startswith(f"functions/{other}/")
    ]
    assert {Path(path).suffix for path in files} <= {".html", ".json", ".proto", ".py", ".txt", ".yaml"}


def test_nothing_secret_and_nothing_of_git_goes_into_a_build() -> None:
    suspects = {".pem", ".key", ".env", ".sqlite", ".db", ".log"}
    assert not [path for path in context() if Path(path).suffix in suspects or path.startswith((".", "build/"))]


def _skaffold() -> Any:
    return yaml.safe_load((ROOT / "skaffold.yaml").read_text())


def test_skaffold_builds_each_image_as_make_does_when_one_of_its_files_has_changed() -> None:
    watched = {}
    for artifact in _skaffold()["build"]["artifacts"]:
        name = artifact["image"].removeprefix("dev.local/shop/")
        custom = artifact["custom"]
        assert custom["buildCommand"] == f'make ship-{name} IMAGE="$IMAGE"'
        # Named here, and not left to skaffold to read in the Dockerfile: it would ask a registry for the base image.
        watched[name] = custom["dependencies"]["paths"]
    assert watched == {name: [file, *dockerfile(name).sources()] for name, (file, _) in builds().items()}


def test_skaffold_knows_every_image_of_ours_that_development_runs() -> None:
    known = {artifact["image"] for artifact in _skaffold()["build"]["artifacts"]}
    for overlay in ("knative/overlays/dev", "knative/overlays/dev-dynamodb", "knative/overlays/dev-sync"):
        images = {c["image"].removesuffix(":dev") for _, spec in pods(render(overlay)) for c in spec["containers"]}
        assert {image for image in images if image.startswith("dev.local/")} <= known
    assert {case["container"]["image"] for case in _skaffold()["verify"]} <= known


@pytest.mark.parametrize("profile", ["", "dev", "aws", "onprem"])
def test_skaffold_understands_its_file(profile: str) -> None:
    if not shutil.which("skaffold"):
        pytest.skip("skaffold is not installed")
    command = ["skaffold", "diagnose", "--yaml-only", *(["-p", profile] if profile else [])]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    config = yaml.safe_load(made)
    assert ("artifacts" in config["build"]) is (profile not in ("aws", "onprem"))


@pytest.mark.parametrize("image", ["functions-orders", "gateway"])
def test_pinning_writes_the_digest_that_the_registry_gave(image: str, tmp_path: Path) -> None:
    digest = "sha256:" + "5a" * 32
    builder = tmp_path / "podman"
    builder.write_text(f'#!/bin/sh\n[ "$2" = --digestfile ] && echo {digest} > "$3"\n')
    builder.chmod(0o755)
    overlay = tmp_path / "kustomization.yaml"
    shutil.copy(ROOT / "knative/components/production/kustomization.yaml", overlay)
    variables = [
        f"BUILDER={builder}",
        f"PINS={overlay}",
        f"DIGESTS={tmp_path / 'digests'}",
        "REGISTRY=r.example.org",
        "TAG=7",
    ]
    subprocess.run(["make", f"pin-{image}", *variables], cwd=ROOT, check=True, capture_output=True)
    images = {entry["name"]: entry for entry in yaml.safe_load(overlay.read_text())["images"]}
    mine = images.pop(f"shop/{image}")
    assert mine == {"name": f"shop/{image}", "newName": f"r.example.org/shop/{image}", "digest": digest}
    assert all(entry["newName"].startswith("registry.example.com/") for entry in images.values())
