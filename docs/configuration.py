"""`python -m docs.configuration`: write the tables of docs/configuration.md from the settings and the manifests."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_type_hints

import msgspec
import yaml

from functions.runtime.settings import RuntimeSettings

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("configuration.md")
_BEGIN, _END = "<!-- settings:begin -->", "<!-- settings:end -->"


def page() -> str:
    """Return the page with newly generated tables between its markers."""
    before, rest = PAGE.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    setters = _setters()
    tables = "\n\n".join(_table(title, cls, setters) for title, cls in _parts())
    return f"{before}{_BEGIN}\n\n{tables}\n\n{_END}{after}"


def _parts() -> Iterator[tuple[str, type[Any]]]:
    yield "Every part", RuntimeSettings
    for path in [ROOT / "gateway/settings.py", *sorted((ROOT / "functions").glob("*/settings.py"))]:
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if module.__name__ != RuntimeSettings.__module__:
            yield path.parent.name.capitalize(), module.Settings


def _setters() -> dict[str, list[str]]:
    """Return the folders of knative/ that set each variable of a service: base, components and overlays."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "knative").rglob("kustomization.yaml")):
        folder = path.parent.relative_to(ROOT / "knative").as_posix().removeprefix("components/")
        if folder.startswith("overlays/onprem-trial"):  # it takes back what onprem sets
            continue
        for name in sorted(set(_set_in(path))):
            found.setdefault(name, []).append(folder)
    return found


def _set_in(kustomization: Path) -> Iterator[str]:
    """Yield the variables that a kustomization sets: by its ConfigMap, its patches and its own Knative services."""
    folder, content = kustomization.parent, yaml.safe_load(kustomization.read_text())
    for generator in content.get("configMapGenerator", ()):
        lines = [str(line) for line in generator.get("literals", ())]
        lines += [line for name in generator.get("envs", ()) for line in (folder / name).read_text().splitlines()]
        yield from (line.partition("=")[0] for line in lines if "=" in line and not line.startswith("#"))
    texts = [patch["patch"] for patch in content.get("patches", ()) if "patch" in patch]
    texts += [(folder / name).read_text() for name in content.get("resources", ()) if (folder / name).is_file()]
    for document in (document for text in texts for document in yaml.safe_load_all(text)):
        if isinstance(document, dict) and document["apiVersion"] == "serving.knative.dev/v1":
            for container in document["spec"]["template"].get("spec", {}).get("containers", ()):
                yield from (variable["name"] for variable in container.get("env", ()))


def _table(title: str, cls: type[Any], setters: dict[str, list[str]]) -> str:
    """Return a Markdown table of the fields that `cls` itself declares, without inherited ones."""
    texts = _docstrings(cls)
    hints = get_type_hints(cls, include_extras=True)
    lines = [f"## {title}", "", "| variable | default | values | meaning | set by |", "|---|---|---|---|---|"]
    for field in msgspec.structs.fields(cls):
        if field.name in texts:
            given = ", ".join(setters.get(field.name.upper(), ()))
            cells = (_default(field.default), _bounds(hints[field.name]), _meaning(field.name, texts), given)
            lines.append(f"| `{field.name.upper()}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _docstrings(cls: type[Any]) -> dict[str, str]:
    """Map each field that the class declares to the string that follows it in the source, or "" without one."""
    body = cast("ast.ClassDef", ast.parse(inspect.getsource(cls)).body[0]).body
    texts = {}
    for field, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = following.value if isinstance(following, ast.Expr) else None
            texts[field.target.id] = str(text.value) if isinstance(text, ast.Constant) else ""
    return texts


def _meaning(name: str, texts: dict[str, str]) -> str:
    if name.endswith("_address") and not texts[name]:
        return f"host:port of the gRPC server of {name.removesuffix('_address')}."
    return " ".join(texts[name].split()).replace("|", r"\|")


def _default(value: Any) -> str:
    if value in ("", None):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _bounds(hint: Any) -> str:
    """Describe the values that a type accepts, from its JSON Schema."""
    (schema,), _ = msgspec.json.schema_components([hint])
    found = next(each for each in schema.get("anyOf", [schema]) if each.get("type") != "null")
    if "enum" in found:
        return ", ".join(f"`{each}`" for each in found["enum"])
    if found.get("type") == "boolean":
        return "`true`, `false`"
    low = [f">= {found['minimum']:,}"] if "minimum" in found else []
    low += [f"> {found['exclusiveMinimum']:,}"] if "exclusiveMinimum" in found else []
    high = [f"<= {found['maximum']:,}"] if "maximum" in found else []
    return ", ".join([*low, *high]) or {"string": "text"}.get(str(found.get("type")), "a number")


if __name__ == "__main__":
    PAGE.write_text(page())
