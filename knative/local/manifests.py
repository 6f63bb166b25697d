"""Read the manifests of a kustomization: its resources, namespace and ConfigMaps. Its other fields are ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

Document = Mapping[str, Any]

SERVING: Final = "serving.knative.dev/v1"
EVENTING: Final = "eventing.knative.dev/v1"
SOURCES: Final = "sources.knative.dev/v1"

# libyaml reads these files ten times faster than the loader in Python.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ManifestError(ValueError):
    """The manifest cannot run here; the message names the file or object and the reason."""


@dataclass(frozen=True)
class Manifests:
    """All documents of a kustomization in order, each with its namespace, and the data of its ConfigMaps by name."""

    namespace: str
    documents: tuple[Document, ...]
    config_maps: Mapping[str, Mapping[str, str]]

    def of(self, api_version: str, kind: str) -> tuple[Document, ...]:
        """Return the documents of one kind."""
        return tuple(d for d in self.documents if (d["apiVersion"], d["kind"]) == (api_version, kind))


def load(folder: Path) -> Manifests:
    """Read `folder`/kustomization.yaml and its resources. Raises ManifestError."""
    kustomization = _one(folder / "kustomization.yaml")
    namespace = str(kustomization.get("namespace", "default"))
    documents: list[Document] = []
    config_maps: dict[str, Mapping[str, str]] = dict(_generated(folder, kustomization))
    for name in kustomization.get("resources", ()):
        path = folder / name
        if path.is_dir():
            nested = load(path)
            documents += nested.documents
            config_maps = {**nested.config_maps, **config_maps}
        else:
            documents += [_in_namespace(document, namespace, path) for document in _read(path)]
    config_maps |= {d["metadata"]["name"]: d.get("data", {}) for d in documents if d["kind"] == "ConfigMap"}
    return Manifests(namespace, tuple(documents), config_maps)


def name_of(document: Document) -> str:
    """Return metadata.name."""
    return str(document["metadata"]["name"])


def container_of(service: Document) -> Mapping[str, Any]:
    """Return the only container of a Knative Service. Raises ManifestError."""
    containers = service["spec"]["template"]["spec"]["containers"]
    if len(containers) != 1:
        raise ManifestError(f"Service {name_of(service)}: one container is expected, not {len(containers)}")
    container: Mapping[str, Any] = containers[0]
    return container


def environment_of(service: Document, manifests: Manifests) -> dict[str, str]:
    """Return the container's variables. Its own override those of its ConfigMaps; Secrets are ignored."""
    container = container_of(service)
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        name = source.get("configMapRef", {}).get("name")
        if name is not None and name not in manifests.config_maps:
            raise ManifestError(f"Service {name_of(service)}: there is no ConfigMap {name}")
        found |= manifests.config_maps.get(name, {})
    return found | {v["name"]: str(v["value"]) for v in container.get("env", ()) if "value" in v}


def _generated(folder: Path, kustomization: Document) -> Iterator[tuple[str, Mapping[str, str]]]:
    for generator in kustomization.get("configMapGenerator", ()):
        lines = [str(line) for line in generator.get("literals", ())]
        for name in generator.get("envs", ()):
            lines += _text(folder / name).splitlines()
        pairs = (line.partition("=") for line in lines if line.strip() and not line.lstrip().startswith("#"))
        yield generator["name"], {key.strip(): value for key, _, value in pairs}


def _in_namespace(document: Document, namespace: str, path: Path) -> Document:
    try:
        metadata = {"namespace": namespace, **document["metadata"]}
        return {"apiVersion": document["apiVersion"], "kind": document["kind"], **document, "metadata": metadata}
    except (KeyError, TypeError) as error:
        raise ManifestError(f"{path}: apiVersion, kind and metadata.name are expected ({error})") from None


def _one(path: Path) -> Document:
    documents = _read(path)
    if len(documents) != 1:
        raise ManifestError(f"{path}: one document is expected, not {len(documents)}")
    return documents[0]


def _read(path: Path) -> list[Document]:
    try:
        return [d for d in yaml.load_all(_text(path), _Loader) if d is not None]
    except yaml.YAMLError as error:
        raise ManifestError(f"{path}: no YAML: {error}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from None
