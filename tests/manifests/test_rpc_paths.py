"""gRPC paths in Istio's manifests are those of the protos."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proto import generate

ROOT = Path(__file__).parents[2]
WRITTEN = [
    (str(path.relative_to(ROOT)), found.replace("\\", ""))
    for path in sorted((ROOT / "istio").rglob("*.yaml"))
    for found in re.findall(r"/(shop(?:\\?\.\w+)+)/", path.read_text())
]
SERVICES = {
    f"{re.search(r'^package (.+);', text, re.MULTILINE)[1]}.{name}"  # type: ignore[index] # each has its package
    for text in ((generate.FOLDER / path).read_text() for path in generate.PROTOS)
    for name in re.findall(r"^service (\w+)", text, re.MULTILINE)
}


@pytest.mark.parametrize(("file", "service"), WRITTEN)
def test_a_path_in_istios_manifests_names_a_service(file: str, service: str) -> None:
    assert service in SERVICES, f"{file}: there is no {service}"


def test_each_service_has_a_route_of_its_own() -> None:
    assert {service for file, service in WRITTEN if file == "istio/base/grpc.yaml"} == SERVICES
