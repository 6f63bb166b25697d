"""Derive the local processes from the manifests: domains, gateway, broker, and timers for PingSources."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import tzinfo
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import yaml

from knative.local import manifests as m
from knative.local.ports import HOST, Ports
from observability import tracing

BROKER: Final = "broker"
GATEWAY: Final = "gateway"
CONSOLE: Final = "console"
USERS: Final = "users"
READY_SECONDS: Final = 60.0  # a start fails if a part is not ready after this time
Launch = Callable[..., tuple[str, ...]]
"""Returns the command that runs a module with arguments."""

# The dead-letter sink has its own pod in a cluster; here it is part of the broker's process.
DEAD_LETTERS: Final = "dead-letters"

_FUNCTION = "shop/functions-"
_CLUSTER = re.compile(r"(?P<name>[a-z0-9-]+)\.(?P<namespace>[a-z0-9-]+)\.svc(?:\.cluster\.local)?(?::\d+)?")
_INGRESS = "broker-ingress"
_KEYS = "service-keys/jwks.json"


@dataclass(frozen=True)
class Part:
    """One process: its command and ports, and the source folders (relative to the repository) whose change restarts it.

    `starts` and `ends` are the order in which parts start and stop: lower numbers first, equal numbers together. If
    `is_held` is true, the runner opens the listening socket and passes it to the part (HTTP_FD), so that connections
    wait while the part restarts.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    http: int
    grpc: int | None = None
    starts: int = 1
    ends: int = 1
    sources: tuple[str, ...] = ()
    is_held: bool = False

    @property
    def url(self) -> str:
        """Return the part's base URL."""
        return f"http://{HOST}:{self.http}"


@dataclass(frozen=True)
class Tick:
    """A PingSource: sends `data` to `sink` as an event from `source`, at each time of `schedule` (cron, in `zone`)."""

    source: str
    schedule: str
    zone: tzinfo
    content_type: str
    data: bytes
    sink: str


@dataclass(frozen=True)
class Platform:
    """All parts and timers, and the broker's configuration (Broker and Trigger manifests with local addresses)."""

    parts: tuple[Part, ...]
    ticks: tuple[Tick, ...]
    broker_config: str


def domains(manifests: m.Manifests) -> tuple[str, ...]:
    """Return the domains that have a Knative Service; a domain's name is that of its image."""
    return tuple(dict.fromkeys(name for name, _ in _programs(manifests) if name != GATEWAY))


def callers(manifests: m.Manifests) -> tuple[str, ...]:
    """Return the services that need a key pair: domains sign events and calls; the gateway reads dead letters."""
    return (*domains(manifests), GATEWAY)


def launch(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module as a part."""
    return (sys.executable, "-m", "knative.local.launch", module, *arguments)


def derive(
    manifests: m.Manifests, ports: Ports, data: Path, shell: Mapping[str, str], launch: Launch = launch
) -> Platform:
    """Return the platform for these manifests, with its data under `data` (an absolute path).

    Variables of the `shell` override those of the manifests, so that OTEL_*, SMTP_URL or LOG_LEVEL can be set for one
    run. Variables with local addresses, ports or files override both.
    """
    local = Local(manifests, ports)
    merged: dict[str, dict[str, str]] = {}
    for name, service in _programs(manifests):
        merged[name] = merged.get(name, {}) | m.environment_of(service, manifests)
    shared = merged.get(GATEWAY, {}).get("TOKEN_ISSUER", "")
    issuer = {"TOKEN_ISSUER": shared} if shared else {}
    parts = [_broker(ports, data, {**issuer, **shell}, launch)]
    for name, env in merged.items():
        given = {key: local.address(value) for key, value in env.items()}
        addresses = {key: given[key] for key, value in env.items() if given[key] != value}
        parts.append(_service(name, {**given, **shell, **addresses, **_fixed(name, ports, data, shell)}, ports, launch))
    return Platform(tuple(parts), tuple(local.ticks()), local.broker_config())


class Local:
    """Maps objects of the manifests to local addresses."""

    def __init__(self, manifests: m.Manifests, ports: Ports) -> None:
        self._manifests = manifests
        self._ports = ports
        self._services = {m.name_of(s): s for s in manifests.of(m.SERVING, "Service")}

    def address(self, value: str) -> str:
        """Replace each cluster address in the value by the local one. Raises ManifestError."""
        return _CLUSTER.sub(lambda match: self._host(match["name"]), value)

    def resolve(self, ref: Mapping[str, Any]) -> str:
        """Return the URL of a `ref` (a Knative Service, the dead-letter Service, a Broker)."""
        name = str(ref["name"])
        if ref["kind"] == "Broker":
            return f"http://{self._host(_INGRESS)}/{ref.get('namespace', self._manifests.namespace)}/{name}"
        return f"http://{self._host(name)}"

    def broker_config(self) -> str:
        """Return the Broker and Trigger manifests with resolved references."""
        documents = [*self._manifests.of(m.EVENTING, "Broker"), *self._manifests.of(m.EVENTING, "Trigger")]
        return yaml.safe_dump_all([self._resolved(d) for d in documents], sort_keys=False)

    def ticks(self) -> Iterator[Tick]:
        """Yield a Tick for each PingSource."""
        for ping in self._manifests.of(m.SOURCES, "PingSource"):
            spec, metadata = ping["spec"], ping["metadata"]
            yield Tick(
                source=f"/apis/v1/namespaces/{metadata['namespace']}/pingsources/{metadata['name']}",
                schedule=spec["schedule"],
                zone=ZoneInfo(spec.get("timezone", "UTC")),
                content_type=spec.get("contentType", "application/json"),
                data=str(spec.get("data", "")).encode(),
                sink=self.resolve(spec["sink"]["ref"]),
            )

    def _host(self, name: str) -> str:
        if name == _INGRESS:
            return self._ports.at(BROKER)
        if name == DEAD_LETTERS:
            return f"{self._ports.at(BROKER)}/{DEAD_LETTERS}"
        if name not in self._services:
            raise m.ManifestError(f"{name}: the manifests hold no service of this name")
        service = self._services[name]
        part = _program(service)
        protocol = m.container_of(service).get("ports", [{}])[0].get("name", "http1")
        return self._ports.at(part, grpc=protocol == "h2c")

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            if "ref" in value:
                return {"uri": self.resolve(value["ref"])}
            return {key: self._resolved(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._resolved(inner) for inner in value]
        return value


def _programs(manifests: m.Manifests) -> Iterator[tuple[str, m.Document]]:
    """Return pairs of part name and Knative Service. Services with the same image belong to one part."""
    return ((_program(service), service) for service in manifests.of(m.SERVING, "Service"))


def _program(service: m.Document) -> str:
    image = str(m.container_of(service)["image"]).partition(":")[0]
    if image.startswith(_FUNCTION):
        return image.removeprefix(_FUNCTION)
    if image == f"shop/{GATEWAY}":
        return GATEWAY
    raise m.ManifestError(f"Service {m.name_of(service)}: it is unknown how to run {image} here")


def with_console(
    platform: Platform, ports: Ports, data: Path, shell: Mapping[str, str], launch: Launch = launch
) -> Platform:
    """Add the console: every part sends its spans to it, and the gateway serves it at /console.

    If the `shell` configures tracing, the spans go to the configured place instead, and the console shows none.
    """
    port = ports.http[CONSOLE]
    letters = f"http://{HOST}:{ports.http[BROKER]}/{DEAD_LETTERS}"
    arguments = ("--port", str(port), "--state", f"{data}/platform.json", "--dead-letters", letters)
    untraced = {key: value for key, value in shell.items() if not key.startswith("OTEL_")}
    untraced["SERVICE_KEY_FILE"] = f"{data}/secrets/service-key-{CONSOLE}/service.pem"
    issuer = next(part.env.get("TOKEN_ISSUER", "") for part in platform.parts if part.name == GATEWAY)
    untraced["TOKEN_ISSUER"] = issuer
    command = launch("knative.local.console", *arguments)
    sources = ("knative/local/console", "events", "observability")
    console = Part(CONSOLE, command, untraced, port, starts=0, ends=3, sources=sources)
    parts = [replace(part, env={**part.env, **_seen(part, console, shell)}) for part in platform.parts]
    return replace(platform, parts=(*parts, console))


def _seen(part: Part, console: Part, shell: Mapping[str, str]) -> dict[str, str]:
    address = {"CONSOLE_URL": console.url} if part.name == GATEWAY else {}
    if tracing.requested(shell):
        return address
    return {
        **address,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{console.url}/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "500",  # milliseconds; short, because the console is live
    }


def _broker(ports: Ports, data: Path, shell: Mapping[str, str], launch: Launch) -> Part:
    port = ports.http[BROKER]
    arguments = ("--config", f"{data}/broker.yaml", "--port", str(port), "--data", f"{data}/broker")
    # Users publishes at once, and the subscribers start when it is ready.
    patience = ("--starting-seconds", str(2 * READY_SECONDS))
    sources = ("events", "knative/local/broker", "events/dead_letters", "observability")
    env = {**shell, "HTTP_PORT": str(port), "SERVICE_KEYS_FILE": f"{data}/secrets/{_KEYS}"}
    return Part(
        BROKER, launch("knative.local.broker", *arguments, *patience), env, port, starts=0, ends=2, sources=sources
    )


def _service(name: str, env: Mapping[str, str], ports: Ports, launch: Launch) -> Part:
    if name == GATEWAY:
        sources: tuple[str, ...] = ("gateway", "functions/runtime", "events", "observability", "proto")
        return Part(name, launch("gateway.main"), env, ports.http[name], ends=0, sources=sources, is_held=True)
    sources = (f"functions/{name}", "functions/runtime", "events", "observability", "proto")
    # Users signs the tokens that all other services verify, so it starts with the broker, before them.
    starts = 0 if name == USERS else 1
    command = launch(f"functions.{name}.main")
    return Part(name, command, env, ports.http[name], ports.grpc[name], starts, sources=sources)


def _fixed(name: str, ports: Ports, data: Path, shell: Mapping[str, str]) -> dict[str, str]:
    store = shell.get("STORE_URL", "")
    env = {
        "SHOP_ENV": "development",
        "HOST": HOST,
        "HTTP_PORT": str(ports.http[name]),
        "STORE_URL": store if store.startswith(("dynamodb:", "postgresql:")) else f"sqlite:///{data}/store",
        "SERVICE_KEY_FILE": f"{data}/secrets/service-key-{name}/service.pem",
        "SERVICE_KEYS_FILE": f"{data}/secrets/{_KEYS}",
        "PORT": "",
        "METRICS_PORT": "",  # here the HTTP port serves the metrics
    }
    return env if name == GATEWAY else {**env, "ROLE": "all", "GRPC_PORT": str(ports.grpc[name])}
