"""Grafana has no accounts: whoever reaches it may look, and no pod reaches it."""

from __future__ import annotations

import yaml

from tests.manifests.conftest import ROOT


def test_whoever_is_not_signed_in_is_a_viewer() -> None:
    documents = list(yaml.safe_load_all((ROOT / "observability/cluster/grafana.yaml").read_text()))
    (deployment,) = (document for document in documents if document["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["grafana"]["environment"]
    for settings in (environ, composed):
        assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
        assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


def test_no_pod_reaches_grafana() -> None:
    documents = list(yaml.safe_load_all((ROOT / "observability/cluster/grafana.yaml").read_text()))
    (policy,) = (document for document in documents if document["kind"] == "NetworkPolicy")
    (deployment,) = (document for document in documents if document["kind"] == "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert "ingress" not in policy["spec"]
