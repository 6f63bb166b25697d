"""What is generated and committed is what the sources give now."""

import subprocess
import sys
from pathlib import Path

import pytest

from knative import event_types

ROOT = Path(__file__).parents[1]
PROTOS = sorted(path.relative_to(ROOT) for path in (ROOT / "proto").glob("*/v1/*.proto"))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    plugins = Path(sys.executable).parent
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "grpc_python")]
    typed = [f"--{kind}_out=quiet:{folder}" for kind in ("mypy", "mypy_grpc")]
    named = [f"--plugin=protoc-gen-{kind}={plugins / f'protoc-gen-{kind}'}" for kind in ("mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=.", *named, *outputs, *typed]
    subprocess.run([*command, *map(str, PROTOS)], cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("proto", PROTOS, ids=str)
def test_the_modules_beside_a_proto_are_generated_from_it(proto: Path, generated: Path) -> None:
    names = [f"{proto.stem}_pb2.py", f"{proto.stem}_pb2.pyi"]
    if "\nservice " in (ROOT / proto).read_text():
        names += [f"{proto.stem}_pb2_grpc.py", f"{proto.stem}_pb2_grpc.pyi"]
    for name in names:
        committed, fresh = ROOT / proto.parent / name, generated / proto.parent / name
        assert committed.read_text() == fresh.read_text(), f"{name} has drifted: make proto-gen"


def test_the_event_types_are_those_of_the_catalogue() -> None:
    assert event_types.FILE.read_text() == event_types.manifests(), "they have drifted: make schemas"
