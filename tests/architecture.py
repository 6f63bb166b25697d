"""The rules of layers, as functions from a repository's root to complaints that say what to do."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

# What a package may import of our own, besides itself. `domain` stands for each folder of functions/ but runtime.
LAYERS: dict[str, tuple[str, ...]] = {
    "observability": (),
    "events": ("observability",),
    "proto": (),
    "functions.runtime": ("events", "observability", "proto"),
    "domain": ("functions.runtime", "events", "observability", "proto"),
    "gateway": ("functions.runtime", "events", "observability", "proto"),
    "knative": ("events", "observability", "functions.runtime"),
}
# Where the only way on is down: a file of a domain, and what it must not know.
FILE_RULES: dict[str, tuple[str, ...]] = {
    "service.py": ("proto", "grpc", "starlette", "cloudevents"),
    "store.py": ("proto", "grpc", "starlette", "cloudevents"),
    "subscriptions.py": ("proto", "grpc", "starlette", "cloudevents"),
    "rpc.py": ("functions.runtime.store.memory", "functions.runtime.store.sqlite"),
}
# Modules of the standard library with side effects: a domain gets time, ids and everything else passed in.
IMPURE = frozenset(
    """
    asyncio concurrent ctypes ftplib glob http io logging multiprocessing os pathlib random secrets select shelve
    shutil signal smtplib socket socketserver sqlite3 ssl subprocess tempfile threading time urllib
    """.split()  # noqa: SIM905 - thirty names are read more easily as a text
)
PURE_OURS = frozenset(
    {
        "events.catalog",
        "functions.runtime.addresses",
        "functions.runtime.currencies",
        "functions.runtime.errors",
        "functions.runtime.formats",
        "functions.runtime.text",
    }
)
IMPURE_CALLS = frozenset({"open", "print", "input", "now", "utcnow", "today", "uuid4", "uuid1"})


def domains(root: Path) -> list[str]:
    """The domain folders, by name."""
    folders = (path for path in (root / "functions").iterdir() if path.is_dir())
    return sorted(path.name for path in folders if path.name not in {"runtime", "template", "__pycache__"})


def modules(root: Path) -> list[Path]:
    """Every module of ours that people write."""
    tops = [*{name.partition(".")[0] for name in LAYERS} - {"domain"}, "functions", "tests"]
    found = {path for top in tops for path in (root / top).rglob("*.py")}
    return sorted(path for path in found if not re.search(r"_pb2(_grpc)?\.py$", path.name))


def wrong_imports(root: Path) -> Iterator[str]:
    """Imports against the direction: domain -> runtime -> events -> observability, and no domain imports another."""
    for path in modules(root):
        name = path.relative_to(root)
        if name.parts[0] == "tests":
            continue
        package, layer = _package(name)
        allowed = (package, *LAYERS[layer])
        for line, imported in imports(path):
            if _is_ours(root, imported) and not _within(imported, allowed):
                yield f"{name}:{line} imports {imported}: {package} may import {', '.join(allowed)} only"
            if "tests" in imported.split(".") and "tests" not in name.parts:
                yield f"{name}:{line} imports {imported}: what is served stands without its tests"
        if layer == "domain" and "tests" not in name.parts:
            yield from _wrong_for_file(path, name)


def _wrong_for_file(path: Path, name: Path) -> Iterator[str]:
    forbidden = FILE_RULES.get(path.name, ()) if len(name.parts) == 3 else ()
    for line, imported in imports(path):
        if _within(imported, forbidden):
            yield f"{name}:{line} imports {imported}: {path.name} is no place for it"


def impure_domains(root: Path) -> Iterator[str]:
    """domain.py, and what it imports of its own folder, knows stdlib, errors, currencies, events only."""
    for domain in domains(root):
        own = f"functions.{domain}"
        todo, seen = [f"{own}.domain"], set[str]()
        while todo:
            module = todo.pop()
            path = root / (module.replace(".", "/") + ".py")
            if module in seen or not path.is_file():
                continue
            seen.add(module)
            for line, imported in imports(path):
                if _within(imported, (own,)):
                    todo += [imported, imported.rpartition(".")[0]]
                elif not _is_pure(imported):
                    yield f"{path.relative_to(root)}:{line} imports {imported}: pass it in, or move it to service.py"
            yield from _impure_calls(root, path)


def _impure_calls(root: Path, path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in IMPURE_CALLS:
                yield f"{path.relative_to(root)}:{node.lineno} calls {called}(): pass its result in"


def _is_pure(imported: str) -> bool:
    top = imported.partition(".")[0]
    return top in sys.stdlib_module_names - IMPURE or _within(imported, PURE_OURS)


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, module) of each import; `from a import b` counts as a.b, since b may be a module."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


@cache
def parsed(path: Path) -> ast.Module:
    """The module's syntax."""
    return ast.parse(path.read_text(), str(path))


def _package(name: Path) -> tuple[str, str]:
    if name.parts[0] != "functions":
        return name.parts[0], name.parts[0]
    package = ".".join(name.parts[:2])
    return package, package if package == "functions.runtime" else "domain"


def _is_ours(root: Path, imported: str) -> bool:
    return (root / imported.partition(".")[0]).is_dir()


def _within(imported: str, packages: Iterable[str]) -> bool:
    return any(imported == package or imported.startswith(f"{package}.") for package in packages)
