"""Overlays as kustomize renders them."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from knative.local import manifests as m
from tests.manifests.conftest import ROOT

TOPS = ("knative", "istio", "observability")


def folders() -> list[str]:
    """Return the folder of every kustomization except Components, which are only parts of others."""
    files = (path for top in TOPS for path in (ROOT / top).rglob("kustomization.yaml"))
    return sorted(str(path.parent.relative_to(ROOT)) for path in files if "\nkind: Kustomization\n" in path.read_text())


@cache
def render(folder: str) -> tuple[m.Document, ...]:
    """Return all documents of a kustomization (a folder under the repository's root); skip without kustomize."""
    command = next(
        (words for words in (["kustomize", "build"], ["kubectl", "kustomize"]) if shutil.which(words[0])),
        None,
    )
    if command is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    # A folder elsewhere has an absolute path.
    built = subprocess.run([*command, str(ROOT / folder)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(document for document in yaml.load_all(built.stdout, loader) if document)


def of(documents: tuple[m.Document, ...], kind: str) -> list[m.Document]:
    """Return the documents of one kind."""
    return [document for document in documents if document["kind"] == kind]


def pods(documents: tuple[m.Document, ...]) -> list[tuple[str, dict[str, Any]]]:
    """Return every pod's specification, with the kind and name of the object that creates it.

    Pods that another operator makes (CloudNativePG's poolers) are its own.
    """
    return [
        (f"{d['kind']}/{m.name_of(d)}", d["spec"]["template"]["spec"])
        for d in documents
        if "template" in d.get("spec", {}) and ".cnpg.io/" not in d["apiVersion"]
    ]
