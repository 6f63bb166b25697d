"""`python -m tests.manifests.audit CHECKOV [FOLDER]`: runs checkov on the Dockerfiles and all rendered manifests.

With FOLDER, it runs on that folder alone. .checkov.yaml lists the skipped checks with reasons. checkov does not support
Knative services, so it gets the Deployment that Knative would make of each.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from knative.local import manifests as m
from tests.manifests.conftest import ROOT
from tests.manifests.rendered import folders, render


def deployed(documents: Iterable[m.Document]) -> Iterator[m.Document]:
    """Yield the documents, with a Deployment in place of each Knative service."""
    for document in documents:
        if document["apiVersion"] == m.SERVING:
            template = document["spec"]["template"]
            name = {"app": m.name_of(document)}
            labelled = {
                **template,
                "metadata": {"labels": {**template["metadata"].get("labels", {}), **name}},
            }
            spec = {"selector": {"matchLabels": name}, "template": labelled}
            yield {**document, "apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}
        else:
            yield document


def audit(checkov: str, folder: Path) -> int:
    """Return checkov's exit code for all Dockerfiles and manifests under `folder`."""
    command = [checkov, "--config-file", str(ROOT / ".checkov.yaml"), "--directory", str(folder)]
    return subprocess.run(command, check=False).returncode


def main(checkov: str, folder: str | None = None) -> int:
    """Return 0 if there are no findings."""
    if folder:
        return audit(checkov, Path(folder))
    with TemporaryDirectory() as made:
        for kustomization in folders():
            path = Path(made, kustomization.replace("/", "-")).with_suffix(".yaml")
            path.write_text(yaml.safe_dump_all(deployed(render(kustomization))))
        for dockerfile in (*ROOT.glob("*/Dockerfile"), *ROOT.glob("*/*/Dockerfile")):
            copy = Path(made, dockerfile.relative_to(ROOT))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(dockerfile.read_text())
        return audit(checkov, Path(made))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
