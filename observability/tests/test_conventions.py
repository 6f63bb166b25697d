"""Attributes are those of the semantic conventions' release that the spans name."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from observability import encoding, tracing
from observability.tests.test_encoding import RESOURCE, Kept
from observability.version import VERSION

METHOD = "shop.orders.v1.OrdersService/GetOrder"
DEPRECATED = {"rpc.system", "rpc.service", "rpc.grpc.status_code", "db.system", "db.name", "http.method"}


class Refused(Exception):
    """An error with a status, as those of the runtime."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = SimpleNamespace(value=code)


@pytest.fixture
def kept() -> Iterator[Kept]:
    provider: Any = Kept()
    tracing.install(provider)
    yield provider
    tracing.install(None)


def sent(kept: Kept) -> Any:
    return encoding.request(RESOURCE, kept.spans).resource_spans[0]


def called(kept: Kept, rpc: tracing.RpcTemplate, error: Refused | None = None) -> dict[str, Any]:
    try:
        with rpc.call():
            if error is not None:
                raise error
    except Refused:
        pass
    (span,) = sent(kept).scope_spans[0].spans
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes}


def test_resource_and_scope_name_the_release_of_the_conventions(kept: Kept) -> None:
    called(kept, tracing.RpcTemplate(METHOD))
    resource = sent(kept)
    assert resource.schema_url == resource.scope_spans[0].schema_url == tracing.SCHEMA_URL


def test_an_rpc_has_the_names_of_today_and_none_that_is_deprecated(kept: Kept) -> None:
    attributes = called(kept, tracing.client_call(f"/{METHOD}", "orders:9082"))
    assert attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "OK",
        "server.address": "orders",
        "server.port": 9082,
    }
    assert not attributes.keys() & DEPRECATED


@pytest.mark.parametrize("address", ["", "orders:9082"], ids=["server", "client"])
@pytest.mark.parametrize(("code", "failed"), [("NOT_FOUND", False), ("UNAVAILABLE", True)])
def test_a_refusal_is_no_error_and_a_fault_is_one_on_either_side(
    kept: Kept, address: str, code: str, failed: bool
) -> None:
    attributes = called(kept, tracing.RpcTemplate(METHOD, address), Refused(code))
    assert attributes["rpc.response.status_code"] == code
    assert (kept.spans[0].failed, "error.type" in attributes) == (failed, failed)


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION
