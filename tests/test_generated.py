"""What is generated and committed is what the sources give now."""

from pathlib import Path

import pytest

from knative import event_types
from proto import generate


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    generate.generate(folder)
    return folder


@pytest.mark.parametrize("proto", generate.PROTOS, ids=str)
def test_the_modules_beside_a_proto_are_generated_from_it(proto: Path, generated: Path) -> None:
    fresh = {path.name: path.read_text() for path in (generated / proto.parent).glob(f"{proto.stem}_pb2*")}
    beside = (generate.FOLDER / proto.parent).glob(f"{proto.stem}_pb2*")
    assert {path.name: path.read_text() for path in beside} == fresh, "they have drifted: make proto-gen"


def test_the_event_types_are_those_of_the_catalogue() -> None:
    assert event_types.FILE.read_text() == event_types.manifests(), "they have drifted: make schemas"
