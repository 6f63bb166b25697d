"""What is installed is locked by hash and comes from wherever the reader's own tools get packages."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from requirements.supply import APART, IMAGES, licences, locked, main, narrowed, normal, refused, weaknesses

ROOT = Path(__file__).parents[1]
LISTS = sorted((ROOT / "requirements").glob("*.txt"))
# A package index belongs to whoever installs, not to the project.
ADDRESS = re.compile(r"://|--?index|index-url|find-links|trusted-host|^-e |pypi\.org|pythonhosted|npmjs", re.MULTILINE)
BUILT_FROM = [
    *ROOT.glob("*/Dockerfile"),
    *ROOT.glob("*/*/Dockerfile"),
    ROOT / "pyproject.toml",
    ROOT / ".ci/run",
    ROOT / "requirements/install.py",
]


def lines(text: str) -> list[str]:
    """Requirements, each with its options, without comments."""
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_every_requirement_is_locked_to_a_version_by_hashes(path: Path) -> None:
    for line in lines(path.read_text()):
        assert re.fullmatch(r"[\w.\[\],-]+==[\w.!+]+( ;[^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), line[:80]


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_a_locked_list_holds_all_that_was_asked_for_and_names_no_address(path: Path) -> None:
    asked = path.with_suffix(".in").read_text()
    names = re.findall(r"^([A-Za-z0-9._-]+)", asked, re.MULTILINE)
    assert {normal(name) for name in names if not name.startswith("-")} <= locked(path.read_text()).keys()
    assert not ADDRESS.findall(path.read_text() + asked)


@pytest.mark.parametrize("path", BUILT_FROM, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_installs_names_a_package_index(path: Path) -> None:
    assert not re.findall(r"index-url|find-links|trusted-host|pypi\.org|pythonhosted|npmjs", path.read_text())


def test_the_lock_file_of_nodes_tools_names_no_address() -> None:
    assert "://" not in (ROOT / "requirements/node/package-lock.json").read_text()


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_installs_is_what_is_tested(image: str) -> None:
    tested = locked((ROOT / "requirements/dev.txt").read_text())
    assert locked((ROOT / f"requirements/{image}.txt").read_text()).items() <= tested.items()


def test_every_list_is_audited() -> None:
    assert {path.stem for path in LISTS} == {"dev", *IMAGES, *APART}


def component(name: str, *named: str, version: str = "1.0") -> dict[str, Any]:
    """As cyclonedx-py has it."""
    entries = [{"license": {"name": each} if "::" in each else {"id": each}} for each in named]
    return {"name": name, "version": version, "bom-ref": f"{name}=={version}", "licenses": entries}


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (component("a", "MIT"), ""),
        (component("a", "License :: OSI Approved", "License :: OSI Approved :: BSD License"), ""),
        ({**component("a"), "licenses": [{"expression": "Apache-2.0 OR (MIT AND BSD-2-Clause)"}]}, ""),
        (component("protobuf"), ""),
        (component("jinja2_ansible_filters"), ""),
        (component("a"), "a: names no licence; look it up"),
        (component("a", "GPL-3.0-only"), "a: GPL-3.0-only is not allowed"),
        (
            {**component("a"), "licenses": [{"expression": "MIT AND AGPL-3.0-only"}]},
            "a: MIT AND AGPL-3.0-only is not allowed",
        ),
        (
            component("a", "License :: Other/Proprietary License"),
            "a: License :: Other/Proprietary License is not allowed",
        ),
    ],
)
def test_only_licences_that_are_allowed_pass(found: dict[str, Any], fault: str) -> None:
    assert refused(found) == fault


def test_an_sbom_of_a_list_has_its_packages_alone_and_only_as_they_are_locked() -> None:
    document = {
        "components": [component("A_b", "MIT"), component("c", "MIT")],
        "dependencies": [{"ref": "A_b==1.0", "dependsOn": ["c==1.0"]}, {"ref": "c==1.0"}],
        "metadata": {},
    }
    sbom = narrowed(document, {"a-b": "1.0"}, "image")
    assert [c["name"] for c in sbom["components"]] == ["A_b"]
    assert sbom["dependencies"] == [{"ref": "A_b==1.0", "dependsOn": []}]
    assert licences(sbom["components"][0]) == {"MIT"}
    with pytest.raises(ValueError, match="image: not installed as locked: c"):
        narrowed(document, {"c": "2.0"}, "image")


WEAK = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
SAFE: dict[str, Any] = {"name": "b", "version": "1", "vulns": []}
SKIPPED = {"name": "c", "skip_reason": "not found"}


def test_what_nobody_could_be_asked_about_is_not_taken_for_safe() -> None:
    answer = json.dumps({"dependencies": [WEAK, SAFE, SKIPPED], "fixes": []})
    assert weaknesses(answer) == (["a 1: CVE-1, mended in 2"], ["c"])


@pytest.mark.parametrize(
    ("answers", "code", "word"),
    [
        ([SAFE], 0, "No known weakness"),
        ([SAFE, WEAK], 1, "dev: a 1: CVE-1"),
        ([SAFE, SKIPPED], 2, "No word about weaknesses"),
        (None, 2, "No word about weaknesses"),
    ],
)
def test_the_audit_says_what_it_found_and_ends_accordingly(
    answers: list[dict[str, Any]] | None,
    code: int,
    word: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With tools that answer what the real ones do; without a network pip-audit says nothing on its output."""
    everything = locked((ROOT / "requirements/dev.txt").read_text())
    components = [component(name, "MIT", version=version) for name, version in everything.items()]
    sbom = {"components": components, "dependencies": [], "metadata": {}}
    answer = "" if answers is None else json.dumps({"dependencies": answers})
    for tool, text in (("cyclonedx-py", json.dumps(sbom)), ("pip-audit", answer)):
        script = f"out = sys.argv[-1] if '-o' in sys.argv else '/dev/stdout'\nopen(out, 'w').write({text!r})"
        (tmp_path / tool).write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
        (tmp_path / tool).chmod(0o755)
    assert main(tmp_path, Path(sys.prefix), tmp_path / "sbom") == code
    assert word in "".join(capfd.readouterr())
    assert json.loads((tmp_path / "sbom/gateway.cdx.json").read_text())["components"]
