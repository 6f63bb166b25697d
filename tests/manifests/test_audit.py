"""The audit by checkov sees Knative's services too."""

from __future__ import annotations

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from knative.local import manifests as m
from tests.manifests.audit import deployed
from tests.manifests.conftest import ROOT

CHECKOV = os.environ.get("CHECKOV", "")


def test_a_knative_service_is_shown_as_the_deployment_that_it_becomes(base: m.Manifests) -> None:
    (service,) = (s for s in base.of(m.SERVING, "Service") if m.name_of(s) == "orders")
    (deployment,) = deployed([service])
    assert (deployment["apiVersion"], deployment["kind"]) == ("apps/v1", "Deployment")
    assert deployment["spec"]["template"]["spec"] == service["spec"]["template"]["spec"]


@pytest.mark.skipif(not CHECKOV, reason="make audit-manifests runs it, where checkov is")
def test_a_service_that_runs_as_root_of_the_node_is_found(base: m.Manifests, tmp_path: Path) -> None:
    service: Any = deepcopy(next(s for s in base.of(m.SERVING, "Service") if m.name_of(s) == "orders"))
    service["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privileged"] = True
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump_all(deployed([service])))
    command = [sys.executable, "-m", "tests.manifests.audit", CHECKOV, str(tmp_path)]
    audit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert audit.returncode == 1, audit.stderr
    assert "CKV_K8S_16" in audit.stdout
    assert "Deployment.shop.orders" in audit.stdout
