"""The composed function that a domain's bootstrap returns to the runtime."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from events.catalog import Payload
from events.signatures import Signer, Verifier
from functions.runtime.clock import Clock
from functions.runtime.event_metrics import EventMetric
from functions.runtime.identity import Access
from functions.runtime.inbox import InboxRecord
from functions.runtime.settings import RuntimeSettings
from functions.runtime.store.port import Store
from functions.runtime.tokens import TokenVerifier

Hook = Callable[[], Awaitable[None]]


Handler = Callable[[Any, InboxRecord], Awaitable[None]]
"""Handles an event. It gets the payload, and the inbox record that must commit together with the event's effect."""


@dataclass(frozen=True)
class RpcService:
    """One gRPC service: the generated `add_..._to_server`, the servicer, the full name, and each method's access rule.

    The service does not start if a method has no access rule.
    """

    add: Callable[[Any, Any], None]
    servicer: object
    name: str
    access: Mapping[str, Access]


@dataclass
class Function:
    """A composed domain: its gRPC services, its subscriptions, and what the runtime needs to serve them.

    `services` is called when the gRPC server starts, so that ROLE=events does not import the servicers.
    `subscriptions[SweepDue]` is the domain's own sweep; before it, the runtime publishes the outbox and removes expired
    records. `on_start` runs before the function is ready. `on_drain` runs when the function is no longer ready but
    still serves, so that it can end streams. `on_stop` runs after the servers have stopped. `signer` signs the events
    that the function sends; `signatures` verifies the events that it receives. `event_metrics` update the domain's own
    metrics from committed events.
    """

    name: str
    settings: RuntimeSettings
    store: Store
    services: Callable[[], Sequence[RpcService]]
    subscriptions: Mapping[type[Payload], Handler]
    verifier: TokenVerifier
    clock: Clock
    signer: Signer
    signatures: Verifier
    on_start: Sequence[Hook] = field(default_factory=tuple)
    on_drain: Sequence[Hook] = field(default_factory=tuple)
    on_stop: Sequence[Hook] = field(default_factory=tuple)
    event_metrics: Mapping[type[Payload], EventMetric] = field(default_factory=dict)
