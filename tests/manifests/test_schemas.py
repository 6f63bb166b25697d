"""The manifests are what Knative's API accepts."""

from __future__ import annotations

import pytest

from knative.local import manifests as m
from tests.manifests import crds
from tests.manifests.rendered import render


def test_every_manifest_of_the_base_fits_its_schema(base: m.Manifests, schemas: crds.Schemas) -> None:
    assert [fault for document in base.documents for fault in crds.faults(document, schemas)] == []


def test_the_check_knows_every_kind_of_knative_that_is_used(base: m.Manifests, schemas: crds.Schemas) -> None:
    used = {(d["apiVersion"], d["kind"]) for d in base.documents if ".knative.dev/" in d["apiVersion"]}
    assert used <= schemas.keys()


def test_the_check_finds_a_misspelt_field(base: m.Manifests, schemas: crds.Schemas) -> None:
    trigger = base.of(m.EVENTING, "Trigger")[0]
    misspelt = {**trigger, "spec": {**trigger["spec"], "delivery": {"retries": 5}}}
    assert any("retries" in fault for fault in crds.faults(misspelt, schemas))


@pytest.mark.parametrize("folder", ["knative/base", "knative/overlays/dev", "knative/overlays/production"])
def test_kustomize_builds_it_and_the_result_fits_the_schemas(folder: str, schemas: crds.Schemas) -> None:
    documents = render(folder)
    assert [fault for document in documents for fault in crds.faults(document, schemas)] == []
    names = {d["metadata"]["name"] for d in documents if d["kind"] == "ConfigMap"}
    used = {
        source["configMapRef"]["name"]
        for d in documents
        if d["apiVersion"] == m.SERVING
        for source in m.container_of(d).get("envFrom", ())
    }
    assert used == names, "a ConfigMap's hashed name did not reach the services"
