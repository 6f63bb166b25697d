"""`make audit`: what the locked requirements bring along. Known weaknesses (pip-audit), the licences, and an SBOM
(CycloneDX) of each image and of development, under build/sbom.

Exit code: 0 nothing found, 1 something found, 2 where nobody can be asked about weaknesses.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
IMAGES: Final = ("function", "gateway", "setup", "e2e")
"""Each is a part of the list `dev`, which is installed."""
APART: Final = ("audit", "clients", "docs", "fuzz", "supply")
ALLOWED: Final = frozenset(
    """
    0BSD Apache-2.0 BSD BSD-2-Clause BSD-3-Clause ISC MIT MIT-0 MPL-2.0 PSF-2.0 Python-2.0 Unlicense Zlib
    """.split()  # noqa: SIM905 - read more easily as a text
)
# What packages that still name their licence by a classifier mean.
_CLASSIFIED: Final = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
# Whose metadata say it in words of their own: looked up in the package.
_LOOKED_UP: Final = {
    "jinja2-ansible-filters": "GPL-3.0-or-later",
    "kubernetes-validate": "Apache-2.0",
    "mypy-protobuf": "Apache-2.0",
    "protobuf": "BSD-3-Clause",
}
EXCEPTIONS: Final = {
    # copier's, for `make new-service` on a developer's machine; in no image, and in nothing that is passed on.
    "jinja2-ansible-filters": "GPL-3.0-or-later",
}
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)
Component = Mapping[str, Any]


def locked(text: str) -> dict[str, str]:
    """Names (as PEP 503 has them) and versions of a locked list."""
    return {normal(name): version for name, version in _LOCKED.findall(text)}


def normal(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def narrowed(document: Mapping[str, Any], wanted: Mapping[str, str], title: str) -> dict[str, Any]:
    """The part of an SBOM that a locked list names. Raises ValueError where something else is installed."""
    found = {normal(c["name"]): c for c in document["components"]}
    differing = [n for n, version in wanted.items() if n not in found or found[n]["version"] != version]
    if differing:
        raise ValueError(f"{title}: not installed as locked: {', '.join(differing)}")
    components = [found[name] for name in wanted]
    references = {component["bom-ref"] for component in components}
    dependencies = [
        {**each, "dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in references]}
        for each in document["dependencies"]
        if each["ref"] in references
    ]
    metadata = {**document["metadata"], "component": {"bom-ref": title, "type": "application", "name": title}}
    return {**document, "metadata": metadata, "components": components, "dependencies": dependencies}


def licences(component: Component) -> set[str]:
    """SPDX expressions, one of several where a package names its licence twice; empty where it names none."""
    if known := _LOOKED_UP.get(normal(component["name"])):
        return {known}
    found = set()
    for entry in component.get("licenses", ()):
        named = entry.get("license", {})
        text: str = entry.get("expression") or named.get("id") or named.get("name")
        last = text.rpartition(" :: ")[2]
        if last != "OSI Approved":
            found.add(_CLASSIFIED.get(last, text))
    return found


def refused(component: Component) -> str:
    """What is wrong with a component's licences; empty for nothing."""
    name, found = normal(component["name"]), licences(component)
    if not found:
        return f"{name}: names no licence; look it up"
    bad = {
        text
        for text in found
        if not all(part in ALLOWED for part in re.split(r" AND | OR |[()]", text) if part)
    }
    if bad - {EXCEPTIONS.get(name)}:
        return f"{name}: {', '.join(sorted(bad))} is not allowed"
    return ""


def inventory(tools: Path, environment: Path, build: Path) -> Iterator[str]:
    """Write the SBOMs and the table of licences into `build`; what is wrong with them."""
    build.mkdir(parents=True, exist_ok=True)
    whole = build / "environment.cdx.json"
    command = [
        str(tools / "cyclonedx-py"),
        "environment",
        str(environment),
        "--output-reproducible",
        "-o",
        str(whole),
    ]
    subprocess.run(command, check=True)
    document = json.loads(whole.read_text())
    whole.unlink()
    for title in ("dev", *IMAGES):
        wanted = locked((HERE / f"{title}.txt").read_text())
        sbom = narrowed(document, wanted, title)
        (build / f"{title}.cdx.json").write_text(json.dumps(sbom, indent=1))
    everything = json.loads((build / "dev.cdx.json").read_text())["components"]
    yield from filter(None, map(refused, everything))
    lines = [f"{c['name']} {c['version']}: {', '.join(sorted(licences(c)))}" for c in everything]
    (build / "licences.txt").write_text("\n".join(lines) + "\n")


def weaknesses(answer: str) -> tuple[list[str], list[str]]:
    """(What pip-audit found, what it could not ask about), from its JSON. Raises ValueError for what is none."""
    packages = json.loads(answer)["dependencies"]
    found = [
        f"{p['name']} {p['version']}: {v['id']}, mended in {', '.join(v['fix_versions']) or 'no version yet'}"
        for p in packages
        for v in p.get("vulns", ())
    ]
    return found, [p["name"] for p in packages if "skip_reason" in p]


def ask(tools: Path, title: str) -> tuple[list[str], list[str]]:
    """As `weaknesses`, of one locked list."""
    path = HERE / f"{title}.txt"
    # --disable-pip: everything is locked, so nothing has to be resolved, nor fetched.
    command = [
        str(tools / "pip-audit"),
        "--disable-pip",
        "--progress-spinner=off",
        "--format=json",
        "-r",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return weaknesses(done.stdout)
    except (ValueError, KeyError):
        return [], sorted(locked(path.read_text()))


def main(tools: Path, environment: Path, build: Path) -> int:
    """See the module."""
    faults = list(inventory(tools, environment, build))
    print(f"SBOMs and licences: {build}")
    unknown: list[str] = []
    for title in ("dev", *APART):
        found, skipped = ask(tools, title)
        faults += [f"{title}: {each}" for each in found]
        unknown += [f"{title}: {each}" for each in skipped]
    for fault in faults:
        print(fault, file=sys.stderr)
    if unknown:
        print(
            f"No word about weaknesses of {len(unknown)} packages ({unknown[0]}, ...): the package index does not "
            "tell, or cannot be reached from here. Run this where it does.",
            file=sys.stderr,
        )
    if faults:
        return 1
    if not unknown:
        print("No known weakness, and no licence that is not allowed.")
    return 2 if unknown else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
