"""What is generated and committed is what the sources give now."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import configuration
from knative import eventing
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


@pytest.mark.parametrize("path", eventing.files(), ids=lambda path: path.name)
def test_event_types_and_triggers_are_those_of_the_catalogue(path: Path) -> None:
    assert path.read_text() == eventing.files()[path], "it has drifted: make schemas"


def test_the_page_of_settings_is_generated_from_the_code() -> None:
    assert configuration.PAGE.read_text() == configuration.page(), "they have drifted: make schemas"


def test_the_page_of_settings_says_which_component_sets_a_variable() -> None:
    rows = {line.split(" | ")[0].strip("| `"): line for line in configuration.PAGE.read_text().splitlines()}
    assert rows["STRIPE_API_KEY"].endswith("| payments/stripe |")
    assert rows["MAIL_FROM"].endswith("| base, overlays/aws, overlays/onprem |")
    assert rows["STORE_URL"].endswith(", store/postgres |")


def read_by_name() -> Iterator[str]:
    """Environment variables that the code of a part reads by their names."""
    for folder in ("events", "functions", "gateway", "knative", "observability"):
        for path in (configuration.ROOT / folder).rglob("*.py"):
            if "tests" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Subscript(value=where, slice=ast.Constant(value=str(name))) if is_environ(where):
                        yield name
                    case ast.Call(
                        func=ast.Attribute(value=where, attr="get"), args=[ast.Constant(value=str(name)), *_]
                    ) if is_environ(where):
                        yield name


def is_environ(node: ast.expr) -> bool:
    return ast.unparse(node) in ("environ", "os.environ")


def test_every_variable_that_a_part_reads_is_on_the_page_of_settings() -> None:
    page, found = configuration.PAGE.read_text(), set(read_by_name())
    assert len(found) > 20
    assert {name for name in found if f"`{name}`" not in page} == set()
