"""`make audit`: audit the locked requirements for known vulnerabilities (pip-audit) and for their licences.

It also writes an SBOM (CycloneDX) of each image and of the development environment to build/sbom.

Exit code: 0 nothing found, 1 something found, 2 vulnerabilities of some packages could not be looked up.
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
"""The locked list of each is a subset of the list `dev`, which is installed."""
APART: Final = ("audit", "clients", "docs", "fuzz", "load", "supply")
ALLOWED: Final = frozenset(
    """
    0BSD Apache-2.0 BSD BSD-2-Clause BSD-3-Clause ISC MIT MIT-0 MPL-2.0 PSF-2.0 Python-2.0 Unlicense ZPL-2.1 Zlib
    """.split()  # noqa: SIM905 - read more easily as a text
)
# Licences of packages that still declare them by a classifier.
_CLASSIFIED: Final = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
# Licences of packages whose metadata does not name them in a standard form; looked up in the packages.
_LOOKED_UP: Final = {
    "jinja2-ansible-filters": "GPL-3.0-or-later",
    "kubernetes-validate": "Apache-2.0",
    "mypy-protobuf": "Apache-2.0",
    "protobuf": "BSD-3-Clause",
}
EXCEPTIONS: Final = {
    # A dependency of copier, for `make new-service` on a developer's machine. It is in no image and not distributed.
    "jinja2-ansible-filters": "GPL-3.0-or-later"
}
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)
Component = Mapping[str, Any]


def locked(text: str) -> dict[str, str]:
    """Return the versions in a locked list by package name (normalized, PEP 503)."""
    return {normal(name): version for name, version in _LOCKED.findall(text)}


def normal(name: str) -> str:
    """Return a package's name, normalized as in PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def narrowed(document: Mapping[str, Any], wanted: Mapping[str, str], title: str) -> dict[str, Any]:
    """Return an SBOM of only the packages in `wanted`. Raises ValueError unless these versions are installed."""
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
    """Return the component's licences as SPDX expressions: several if it declares more than one, or none."""
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
    """Return the problem with a component's licences, "" if there is none."""
    name, found = normal(component["name"]), licences(component)
    if not found:
        return f"{name}: names no licence; look it up"
    bad = {text for text in found if not all(part in ALLOWED for part in re.split(r" AND | OR |[()]", text) if part)}
    if bad - {EXCEPTIONS.get(name)}:
        return f"{name}: {', '.join(sorted(bad))} is not allowed"
    return ""


def inventory(tools: Path, environment: Path, build: Path) -> Iterator[str]:
    """Write the SBOMs and the list of licences to `build`; yield the problems with the licences."""
    build.mkdir(parents=True, exist_ok=True)
    whole = build / "environment.cdx.json"
    command = [str(tools / "cyclonedx-py"), "environment", str(environment), "--output-reproducible", "-o", str(whole)]
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
    """Return the vulnerabilities and the skipped packages in pip-audit's JSON. Raises ValueError if it is no JSON."""
    packages = json.loads(answer)["dependencies"]
    found = [
        f"{p['name']} {p['version']}: {v['id']}, mended in {', '.join(v['fix_versions']) or 'no version yet'}"
        for p in packages
        for v in p.get("vulns", ())
    ]
    return found, [p["name"] for p in packages if "skip_reason" in p]


def ask(tools: Path, title: str) -> tuple[list[str], list[str]]:
    """Run pip-audit on one locked list; return the same as `weaknesses`. If it fails, all packages are skipped ones."""
    path = HERE / f"{title}.txt"
    # --disable-pip: everything is locked, so nothing has to be resolved or downloaded.
    command = [str(tools / "pip-audit"), "--disable-pip", "--progress-spinner=off", "--format=json", "-r", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return weaknesses(done.stdout)
    except (ValueError, KeyError):
        return [], sorted(locked(path.read_text()))


def main(tools: Path, environment: Path, build: Path) -> int:
    """Run the audit; return the exit code that the module's docstring describes."""
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
