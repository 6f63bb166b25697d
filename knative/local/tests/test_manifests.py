"""Reading a kustomization."""

from __future__ import annotations

from pathlib import Path

import pytest

from knative.local import manifests as m

SERVICE = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hats}
spec:
  template:
    spec:
      containers:
        - image: shop/functions-hats
          envFrom: [{configMapRef: {name: settings}}]
          env:
            - {name: COLOUR, value: green}
            - {name: SECRET, valueFrom: {secretKeyRef: {name: a, key: b}}}
"""


def write(folder: Path, kustomization: str, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "kustomization.yaml").write_text(kustomization)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_resources_are_read_in_order_and_get_the_namespace(tmp_path: Path) -> None:
    two = "apiVersion: v1\nkind: Secret\nmetadata: {name: b}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: c}\n"
    one = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: elsewhere}\n"
    read = m.load(write(tmp_path / "k", "namespace: hall\nresources: [two.yaml, one.yaml]", two=two, one=one))
    names = [(m.name_of(d), d["metadata"]["namespace"]) for d in read.documents]
    assert names == [("b", "hall"), ("c", "hall"), ("a", "elsewhere")]


def test_a_folder_among_the_resources_is_a_kustomization_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "inner", "resources: [service.yaml]", service=SERVICE)
    read = m.load(write(tmp_path / "outer", "resources: [../inner]"))
    assert [m.name_of(d) for d in read.of(m.SERVING, "Service")] == ["hats"]


def test_a_services_environment_is_its_config_map_then_its_own_without_secrets(tmp_path: Path) -> None:
    generator = "configMapGenerator: [{name: settings, envs: [settings.env], literals: [SIZE=9]}]"
    folder = write(tmp_path / "k", f"resources: [service.yaml]\n{generator}", service=SERVICE)
    (folder / "settings.env").write_text("# a comment\nCOLOUR=red\n\nURL=http://a/?b=c\n")
    read = m.load(folder)
    (service,) = read.of(m.SERVING, "Service")
    assert m.environment_of(service, read) == {"COLOUR": "green", "SIZE": "9", "URL": "http://a/?b=c"}


def test_a_config_map_that_is_not_there_is_named(tmp_path: Path) -> None:
    read = m.load(write(tmp_path / "k", "resources: [service.yaml]", service=SERVICE))
    with pytest.raises(m.ManifestError, match="Service hats: there is no ConfigMap settings"):
        m.environment_of(read.documents[0], read)


def test_a_file_that_is_not_there_or_no_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(m.ManifestError, match=r"missing\.yaml: No such file"):
        m.load(write(tmp_path / "a", "resources: [missing.yaml]"))
    with pytest.raises(m.ManifestError, match=r"odd\.yaml: no YAML"):
        m.load(write(tmp_path / "b", "resources: [odd.yaml]", odd="a: [b"))
    with pytest.raises(m.ManifestError, match=r"odd\.yaml: apiVersion, kind and metadata\.name"):
        m.load(write(tmp_path / "c", "resources: [odd.yaml]", odd="kind: Nothing"))
