"""Generate the Python modules next to the .proto files.

`python -m proto.generate` generates them; `python -m proto.generate FILE` writes the descriptors of all .proto files
into FILE instead.

The folder of a package follows its name: shop.orders.v1 is in shop/orders/v1. This folder is the root of the imports in
.proto files, so that protoc generates `from shop.orders.v1 import ...`. The root of Python's imports is its parent, so
this script rewrites them to `from proto.shop.orders.v1 import ...`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PROTOS = sorted(path.relative_to(FOLDER) for path in FOLDER.glob("shop/*/v1/*.proto"))

# An import, or the name of the module that the generated code passes to its messages.
_MODULE = re.compile(r"^(from |import |_builder\.BuildTopDescriptorsAndMessages\(DESCRIPTOR, ')shop\.", re.MULTILINE)
_OUTPUTS = {"python": "", "mypy": "quiet:"}
_SERVICE_OUTPUTS = {"grpc_python": "", "mypy_grpc": "quiet:"}


def generate(target: Path = FOLDER) -> None:
    """Generate the modules of all .proto files below `target`. Raises CalledProcessError for an invalid file."""
    services = [path for path in PROTOS if "\nservice " in (FOLDER / path).read_text()]
    _protoc(target, _OUTPUTS, PROTOS)
    _protoc(target, _SERVICE_OUTPUTS, services)
    for path in PROTOS:
        for module in (target / path.parent).glob(f"{path.stem}_pb2*.py*"):
            module.write_text(_MODULE.sub(r"\1proto.shop.", module.read_text()))


def describe(file: Path) -> None:
    """Write the descriptors of all .proto files into one file; buf compares later versions with it."""
    _run([f"--descriptor_set_out={file.resolve()}", "--include_imports"], PROTOS)


def _protoc(target: Path, outputs: dict[str, str], protos: list[Path]) -> None:
    tools = Path(sys.executable).parent
    plugins = [f"--plugin=protoc-gen-{kind}={tools / f'protoc-gen-{kind}'}" for kind in ("mypy", "mypy_grpc")]
    written = [f"--{kind}_out={options}{target}" for kind, options in outputs.items()]
    _run([*plugins, *written], protos)


def _run(options: list[str], protos: list[Path]) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={FOLDER}", *options]
    subprocess.run([*command, *map(str, protos)], cwd=FOLDER, check=True)  # noqa: S603 - our own files


if __name__ == "__main__":
    if len(sys.argv) > 1:
        describe(Path(sys.argv[1]))
    else:
        generate()
