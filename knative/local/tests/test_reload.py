"""Which parts a changed file restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from knative.local import manifests, parts, ports, reload

BASE = manifests.load(Path(__file__).parents[2] / "base")
PARTS = parts.derive(BASE, ports.fixed(parts.domains(BASE)), Path("/d"), {}).parts
FUNCTIONS = set(parts.domains(BASE))


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("functions/orders/domain.py", {"orders"}),
        ("functions/orders/tests/test_domain.py", set()),
        ("functions/orders/notes.txt", set()),
        ("functions/runtime/rpc/server.py", FUNCTIONS | {"gateway"}),
        ("gateway/main.py", {"gateway"}),
        ("knative/local/broker/ingress.py", {"broker"}),
        ("events/catalog.py", FUNCTIONS | {"gateway", "broker"}),
        ("proto/shop/orders/v1/orders_pb2.py", FUNCTIONS | {"gateway"}),
    ],
)
def test_a_changed_source_restarts_who_uses_it(path: str, names: set[str]) -> None:
    assert {part.name for part in reload.affected(PARTS, [path])} == names
