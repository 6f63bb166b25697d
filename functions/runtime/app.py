"""What a domain hands to the runtime: one composed function service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from events.catalog import Payload
from events.signatures import Signer, Verifier
from functions.runtime.access import Access
from functions.runtime.clock import Clock
from functions.runtime.event_metrics import EventMetric
from functions.runtime.inbox import InboxRecord
from functions.runtime.settings import RuntimeSettings
from functions.runtime.store.port import Store
from functions.runtime.tokens import TokenVerifier

Hook = Callable[[], Awaitable[None]]


Handler = Callable[[Any, InboxRecord], Awaitable[None]]
"""Takes the payload of one event, and the inbox record that must commit with its effect."""


@dataclass(frozen=True)
class RpcService:
    """One gRPC service: its generated `add_..._to_server`, the servicer, the full name, and who may call each of its
    methods (bare names): one that is missing keeps the service from starting."""

    add: Callable[[Any, Any], None]
    servicer: object
    name: str
    access: Mapping[str, Access]


@dataclass
class Function:
    """A domain, composed: the two doors (`services`, `subscriptions`) and what the runtime needs to open
    them.

    `services` is called where the gRPC door opens, so that the event role never imports gRPC.
    `subscriptions[SweepDue]` is the domain's own sweep; the runtime sweeps outbox and expired records before
    it. `on_start` runs before the service is ready, `on_drain` when it stops being so, while the doors are still
    open (streams are told to end), `on_stop` after they are closed.
    `signer` signs the events that it sends, `signatures` checks those that it hears.
    `event_metrics` take what has committed to the domain's own metrics.
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
