"""`python -m events.schemas` writes the schemas, unless a change would be incompatible with a published schema.

With `--against REF` it writes nothing and compares them with the schemas of a git revision, such as a release's tag.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from events.schemas import FOLDER, schema_files
from events.schemas.asyncapi import document
from events.schemas.compatibility import incompatibilities

_ADVICE = "Leave the type as it is and add a new one (...v2). Never published? Then delete the schema's file first."


def breaks(published: dict[str, str], made: dict[str, str]) -> Iterator[str]:
    """Yield each incompatibility between the published and the newly generated schemas (texts by file name)."""
    for name, text in sorted(published.items()):
        if name not in made:
            yield f"{name}: the type is gone, but events of it may be under way"
            continue
        for problem in incompatibilities(json.loads(text), json.loads(made[name])):
            yield f"{name}: {problem}"


def write(folder: Path) -> list[str]:
    """Write all files, or none if a change is incompatible; return the incompatibilities."""
    made = schema_files()
    problems = list(breaks({path.name: path.read_text() for path in folder.glob("*.json")}, made))
    if not problems:
        for name, text in (made | {"asyncapi.yaml": document()}).items():
            (folder / name).write_text(text)
    return problems


def committed(revision: str, folder: Path) -> dict[str, str]:
    """Return the schemas of a git revision. Raises CalledProcessError if git cannot find it."""
    listing = _git(folder, "ls-tree", "--name-only", revision, "./")
    names = [name for name in listing.splitlines() if name.endswith(".json")]
    return {name: _git(folder, "show", f"{revision}:./{name}") for name in names}


def _git(folder: Path, *args: str) -> str:
    command = ["git", "-C", str(folder), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - no shell


def main() -> None:
    """Run the command line. With incompatibilities, print one line for each and exit with code 1."""
    parser = argparse.ArgumentParser(prog="python -m events.schemas", description=__doc__)
    parser.add_argument("--against", metavar="REF", help="compare with a git revision, write nothing")
    against = parser.parse_args().against
    problems = list(breaks(committed(against, FOLDER), schema_files())) if against else write(FOLDER)
    if problems:
        sys.exit("\n".join([*problems, _ADVICE]))


if __name__ == "__main__":
    main()
