"""Load Brokers and Triggers from their manifests (`eventing.knative.dev/v1`) and check them at start."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from knative.local.broker.filters import Filter, FilterError, compile_filters, event_types

_GROUP: Final = "eventing.knative.dev/v1"
_DURATION = re.compile(
    r"P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:[.,]\d+)?)S)?)?"
)
_SECONDS: Final = {"weeks": 604800, "days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


class ConfigError(ValueError):
    """The broker does not support a manifest; the message names the manifest and says why."""


@dataclass(frozen=True, slots=True)
class DeliverySpec:
    """A DeliverySpec; durations are in seconds.

    The defaults are Knative's (configmap config-br-defaults), except for the timeout, for which Knative has no default.
    """

    retry: int = 10
    exponential: bool = True
    backoff_delay: float = 0.2
    timeout: float = 30.0
    retry_after_max: float = 60.0
    structured: bool = False
    dead_letter_url: str | None = None


@dataclass(frozen=True, slots=True)
class Trigger:
    """A Trigger: `key` is its namespace/name, `broker` the key of its broker. All events match if `passes` is None.

    `types` are the event types that its filters name; it is empty if other types may match, too.
    """

    key: str
    namespace: str
    broker: str
    subscriber_url: str
    passes: Filter | None
    types: tuple[str, ...]
    delivery: DeliverySpec

    @property
    def queues(self) -> dict[str, str | None]:
        """Return the event type that each of the trigger's dispatchers delivers (None: all types), by its key."""
        return {f"{self.key} {name}": name for name in self.types} or {self.key: None}

    def continues(self, key: str) -> bool:
        """Return whether this trigger takes over the pending deliveries of the dispatcher `key`, which is gone.

        It does if that was its own dispatcher, for an event type that its filters named before. It also does if that
        belonged to a trigger of an earlier release, which had one trigger for each event type: `shop/orders-events`
        takes over from `shop/orders-stock-reserved`.
        """
        own = key.partition(" ")[0] == self.key
        return own or (self.key.endswith("-events") and key.startswith(self.key.removesuffix("events")))


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """The triggers of each broker by its key (namespace/name), in the order of the manifests."""

    triggers: Mapping[str, tuple[Trigger, ...]] = field(default_factory=dict)


def load(text: str) -> BrokerConfig:
    """Parse a YAML stream of manifests; kinds other than Broker and Trigger are ignored. Raises ConfigError."""
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an invalid date, or too deep nesting
        raise ConfigError(f"the configuration is no YAML: {error}") from None
    return from_documents(documents)


def from_documents(documents: Iterable[Any]) -> BrokerConfig:
    """Return the same as `load`, from manifests that are already parsed."""
    manifests = [_Manifest(document) for document in documents if _is_eventing(document)]
    brokers = {m.key: m.delivery(None) for m in manifests if m.kind == "Broker"}
    found: dict[str, list[Trigger]] = {key: [] for key in brokers}
    seen: set[str] = set()
    for manifest in manifests:
        if manifest.kind == "Trigger":
            trigger = manifest.trigger(brokers)
            if trigger.key in seen:
                raise ConfigError(f"{manifest.title}: defined twice")
            seen.add(trigger.key)
            found[trigger.broker].append(trigger)
    if not found:
        raise ConfigError("the configuration holds no Broker")
    return BrokerConfig({key: tuple(triggers) for key, triggers in found.items()})


def parse_duration(text: object) -> float:
    """Return an ISO 8601 duration ("PT0.5S", without years and months) in seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    parts = {name: value for name, value in match.groupdict().items() if value} if match else {}
    if not parts:
        raise ValueError(f"{text!r} is no ISO 8601 duration such as PT0.5S")
    return sum(float(value.replace(",", ".")) * _SECONDS[name] for name, value in parts.items())


def _is_eventing(document: object) -> bool:
    return (
        isinstance(document, dict)
        and document.get("apiVersion") == _GROUP
        and document.get("kind") in ("Broker", "Trigger")
    )


def _section(where: str, value: object) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{where}: a mapping is expected")
    return value or {}


class _Manifest:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.kind: str = document["kind"]
        metadata = _section(f"a {self.kind}'s metadata", document.get("metadata"))
        self.name = metadata.get("name")
        self.namespace: str = metadata.get("namespace") or "default"
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"a {self.kind} has no metadata.name")
        self.key = f"{self.namespace}/{self.name}"
        self.title = f"{self.kind} {self.key}"
        self._spec = _section(f"{self.title}: spec", document.get("spec"))

    def trigger(self, brokers: Mapping[str, DeliverySpec | None]) -> Trigger:
        reference = _section(f"{self.title}: spec.brokerRef", self._spec.get("brokerRef"))
        name = self._spec.get("broker") or reference.get("name")
        broker = f"{self.namespace}/{name}"
        if broker not in brokers:
            raise ConfigError(f"{self.title}: there is no Broker {broker}")
        try:
            passes = compile_filters(self._spec)
            types = event_types(self._spec)
        except FilterError as error:
            raise ConfigError(f"{self.title}: {error}") from None
        subscriber = self._destination("subscriber", self._spec.get("subscriber"))
        delivery = self.delivery(brokers[broker]) or DeliverySpec()
        return Trigger(self.key, self.namespace, broker, subscriber, passes, types, delivery)

    def delivery(self, inherited: DeliverySpec | None) -> DeliverySpec | None:
        """Return the manifest's DeliverySpec, or `inherited` (the broker's) if it has none.

        As in Knative, nothing is merged, except that the dead-letter sink is inherited if the manifest sets none.
        """
        if self._spec.get("delivery") is None:
            return inherited
        spec = _section(f"{self.title}: spec.delivery", self._spec["delivery"])
        sink, url = spec.get("deadLetterSink"), inherited.dead_letter_url if inherited else None
        if sink:
            url = self._destination("spec.delivery.deadLetterSink", sink)
        try:
            return replace(_delivery(spec), dead_letter_url=url)
        except ValueError as error:
            raise ConfigError(f"{self.title}: {error}") from None

    def _destination(self, where: str, value: object) -> str:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{self.title}: {where} is missing")
        ref, uri = _section(f"{self.title}: {where}.ref", value.get("ref")), value.get("uri")
        if ref:
            raise ConfigError(f"{self.title}: {where}.ref {ref.get('name')!r} is not resolved to a URL")
        try:
            parts = urlsplit(uri) if isinstance(uri, str) else None
        except ValueError:
            parts = None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{self.title}: {where}: {uri!r} is no http URL")
        return str(uri)


def _delivery(spec: Mapping[str, Any]) -> DeliverySpec:
    retry, policy, form = spec.get("retry", 0), spec.get("backoffPolicy"), spec.get("format")
    if isinstance(retry, bool) or not isinstance(retry, int) or retry < 0:
        raise ValueError(f"spec.delivery.retry: {retry!r} is no number of retries")
    if policy not in (None, "exponential", "linear"):
        raise ValueError(f"spec.delivery.backoffPolicy: {policy!r} is neither exponential nor linear")
    if form not in (None, "json", "binary"):
        raise ValueError(f"spec.delivery.format: {form!r} is neither json nor binary")
    timeout = _seconds(spec, "timeout", 30.0)
    if timeout == 0:
        raise ValueError("spec.delivery.timeout: more than zero is expected")
    # Without a backoff policy or a delay, Knative retries at once.
    delay = _seconds(spec, "backoffDelay", 0.0) if policy else 0.0
    after_max = _seconds(spec, "retryAfterMax", 60.0)
    return DeliverySpec(retry, policy != "linear", delay, timeout, after_max, form == "json")


def _seconds(spec: Mapping[str, Any], name: str, default: float) -> float:
    if spec.get(name) is None:
        return default
    try:
        return parse_duration(spec[name])
    except ValueError as error:
        raise ValueError(f"spec.delivery.{name}: {error}") from None
