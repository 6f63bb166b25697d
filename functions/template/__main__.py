"""`python -m functions.template new NAME` creates a service; `... remove NAME` removes it.

The Makefile's targets new-service and remove-service also regenerate the derived files.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from functions.template import catalog, shared
from functions.template.names import NameRefused, Names, checked_entity, checked_name, entity_of, prefix_of

FOLDER = Path(__file__).parent
CATALOG = Path("events/catalog.py")
PORTS = Path("knative/local/ports.py")
_TAKEN_NUMBERS = {10, 11}
"""Port 8090 belongs to the broker, and 8091 to the console."""

_NEXT = """\
{name} is a service: gRPC shop.{name}.v1.{service}, locally at 127.0.0.1:{grpc_port}; events at 127.0.0.1:{http_port}.
Edit next:
  proto/shop/{name}/v1/{name}.proto  its calls; then make proto-gen
  functions/{name}/domain.py        its entities and their rules; then service.py, store.py, rpc.py
  events/catalog.py                 {event} and further events, and who hears what; then make schemas
  functions/{name}/subscriptions.py the events that it hears, each with the method that handles it
  gateway/routes/                   a file of its own if it has a public face
  knative/overlays/aws/             the account in roles.yaml
make lint test-unit checks that all of this fits together; make up starts it. make remove-service NAME={name} undoes it.
"""


def new(root: Path, name: str, entity: str) -> str:
    """Write a service under `root`, and return the next steps. Raises NameRefused or Unplaced before it writes."""
    if (root / "functions" / checked_name(name)).exists():
        raise NameRefused(f"NAME={name}: there is such a service already, in functions/{name}.")
    for path in _own(root, name):
        if path.exists():
            raise NameRefused(f"NAME={name}: {path.relative_to(root)} is there already.")
    source = (root / CATALOG).read_text()
    classes = frozenset(event.name for event in catalog.events(source))
    entity = checked_entity(entity or entity_of(name), name, classes)
    names = Names(name, entity, prefix_of(entity, root), _free_number(root))
    written = _added(root, shared.additions(names.answers()))
    written[root / CATALOG] = catalog.with_service(source, names.answers())

    from copier import run_copy  # takes a second to import, so only after all checks

    run_copy(str(FOLDER), root, data=names.answers(), defaults=True, quiet=True)
    for path, text in written.items():
        path.write_text(text)
    _format(root, [CATALOG, Path("functions") / name])
    return _NEXT.format_map(names.answers())


def remove(root: Path, name: str) -> str:
    """Remove a service, and return the remaining manual steps. Raises NameRefused if it is unknown or still used."""
    if not (root / "functions" / checked_name(name)).is_dir():
        raise NameRefused(f"NAME={name}: there is no functions/{name}.")
    source = (root / CATALOG).read_text()
    own_events = [event for event in catalog.events(source) if event.source == f"/{name}"]
    if users := _users(root, name, [event.name for event in own_events]):
        raise NameRefused(f"NAME={name}: it is still used; change first\n  " + "\n  ".join(users))
    number = _numbers(root).get(name, 0)
    answers = Names(name, entity_of(name), "", number).answers()
    problems = []
    for addition in shared.additions(answers):
        path = root / addition.file
        try:
            path.write_text(addition.taken_from(path.read_text()))
        except shared.Unplaced as unplaced:
            problems.append(f"  {unplaced}")
    for event in own_events:
        (root / "events" / "schemas" / f"{event.type}.json").unlink(missing_ok=True)
    (root / CATALOG).write_text(catalog.without_service(source, name))
    for path in _own(root, name):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    _format(root, [CATALOG])
    return "\n".join([f"{name} is gone.", *(["Left to do:", *problems] if problems else [])]) + "\n"


def _own(root: Path, name: str) -> list[Path]:
    """Return the paths that belong only to the service."""
    return [root / "functions" / name, root / "proto" / "shop" / name, root / "knative" / "base" / f"{name}.yaml"]


def _users(root: Path, name: str, events: list[str]) -> list[str]:
    """Return the modules outside the service that use the service or its events."""
    names = re.compile("|".join(rf"\b{word}\b" for word in (rf"(functions|proto\.shop)\.{name}", *events)))
    own = tuple(map(str, (*_own(root, name), root / CATALOG, root / "functions" / "template")))
    folders = ("functions", "gateway", "knative", "events", "observability", "tests")
    modules = (path for folder in folders for path in sorted((root / folder).rglob("*.py")))
    return [
        str(path.relative_to(root))
        for path in modules
        if not str(path).startswith(own) and names.search(path.read_text())
    ]


def _added(root: Path, additions: list[shared.Addition]) -> dict[Path, str]:
    """Return the new texts of the shared files by path, with the additions."""
    texts: dict[Path, str] = {}
    for addition in additions:
        path = root / addition.file
        texts[path] = addition.added_to(texts[path] if path in texts else path.read_text())
    return texts


def _numbers(root: Path) -> dict[str, int]:
    """Return the number of each service, which determines its local ports."""
    rows = re.findall(r'^    "([a-z0-9]+)": (\d+),$', (root / PORTS).read_text(), re.MULTILINE)
    return {name: int(number) for name, number in rows}


def _free_number(root: Path) -> int:
    taken = {*_numbers(root).values(), *_TAKEN_NUMBERS}
    return next(number for number in range(1, 100) if number not in taken)


def _format(root: Path, paths: list[Path]) -> None:
    """Sort the imports and wrap the lines of generated code.

    A service's name changes the order of imports and the lengths of lines.
    """
    for command in (["check", "--select=I", "--fix"], ["format"]):
        subprocess.run(  # noqa: S603 - our own tool on our own files
            [sys.executable, "-m", "ruff", *command, "--quiet", *map(str, paths)], cwd=root, check=True
        )


def main() -> int:
    """Run the command line and return the exit code. Refusals are written to standard error."""
    parser = argparse.ArgumentParser(prog="python -m functions.template", description=__doc__)
    parser.add_argument("action", choices=["new", "remove"])
    parser.add_argument("name", help="such as inventory")
    parser.add_argument("--entity", default="", help="the entity of a new service, such as stock_item")
    given = parser.parse_args()
    root = Path.cwd()
    try:
        said = new(root, given.name, given.entity) if given.action == "new" else remove(root, given.name)
    except (NameRefused, shared.Unplaced) as refusal:
        sys.stderr.write(f"{refusal}\n")
        return 1
    sys.stdout.write(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
