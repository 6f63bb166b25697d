"""What the tests of the broker share: manifests, a subscriber that records, a broker on a free port."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client import CollectorRegistry

from events.http_server import serving
from events.tests.support import CALLERS, headers, service_token
from knative.local.broker.app import BrokerApp
from knative.local.broker.config import from_documents
from knative.local.broker.dispatcher import DispatchLimits

API = "eventing.knative.dev/v1"
FAST = {"retry": 3, "backoffPolicy": "linear", "backoffDelay": "PT0.001S"}


def broker(name: str = "default", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": "Broker",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }


def trigger(name: str, url: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": "Trigger",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"broker": "default", "subscriber": {"uri": url}, **spec},
    }


def any_of(*types: str) -> list[dict[str, Any]]:
    """The filters of a Trigger for events of these types."""
    return [{"any": [{"exact": {"type": name}} for name in types]}]


def as_yaml(documents: Sequence[dict[str, Any]]) -> str:
    return yaml.safe_dump_all(documents)


@dataclass
class Broker:
    """A running broker: `http` speaks to it, `post` publishes an event in binary mode."""

    app: BrokerApp
    http: httpx.AsyncClient
    registry: CollectorRegistry

    async def post(self, event_id: str = "1", path: str = "/shop/default", **attributes: str) -> httpx.Response:
        return await self.http.post(path, headers=headers(event_id, **attributes), content=b'{"a": 1}')

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def running(
    data: Path, *documents: dict[str, Any], limits: DispatchLimits | None = None, port: int = 0
) -> AsyncIterator[Broker]:
    registry = CollectorRegistry()
    app = BrokerApp(from_documents(documents), data, registry=registry, limits=limits, callers=CALLERS)
    shown = {"authorization": f"Bearer {service_token()}"}  # which only the dead letters look at
    async with (
        serving(app, port=port) as url,
        httpx.AsyncClient(base_url=url, timeout=10, headers=shown) as http,
    ):
        yield Broker(app, http, registry)
