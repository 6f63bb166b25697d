"""`python -m tests.manifests.score KUBE_SCORE`: kube-score on the manifests of production; any finding is an error."""

from __future__ import annotations

import subprocess
import sys

import yaml

from tests.manifests.rendered import render

# The checks of kube-score that production does not follow, with the reasons.
EXCEPTIONS = {
    "container-image-pull-policy": "production pins images by digest (make pin-all): the same digest is the same image",
    "networkpolicy-targets-pod": "the pods are made later, by Knative, from services that kube-score does not know",
}


def score(kube_score: str, manifests: str) -> int:
    """Return the exit code of kube-score; warnings are failures too."""
    command = [kube_score, "score", "-", "--output-format", "ci", "--exit-one-on-warning"]
    command += [word for test in EXCEPTIONS for word in ("--ignore-test", test)]
    run = subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)
    if run.returncode:
        findings = [line for line in run.stdout.splitlines() if not line.startswith(("[OK]", "[SKIPPED]"))]
        print("\n".join([*findings, run.stderr]))  # noqa: T201 - for whoever runs it
    return run.returncode


if __name__ == "__main__":
    overlays = ("knative/overlays/aws", "knative/overlays/onprem")
    sys.exit(max(score(sys.argv[1], yaml.safe_dump_all(render(overlay))) for overlay in overlays))
