"""The collaborators that all requests share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from functions.runtime.key_set import KeySetCache
from functions.runtime.tokens import TokenVerifier
from gateway.clients import Clients
from gateway.limits import ConcurrencyLimiter, TokenBuckets
from gateway.settings import Settings


@dataclass
class AppState:
    """The shared collaborators; `gateway.app.compose` creates them from the settings."""

    settings: Settings
    clients: Clients
    verifier: TokenVerifier
    keys: KeySetCache
    address_rates: TokenBuckets
    """The request rate of each network address."""
    user_rates: TokenBuckets
    """The request rate of each signed-in user."""
    export_rates: TokenBuckets
    """The export rate of each signed-in user."""
    active_requests: ConcurrencyLimiter
    """Requests whose body has arrived."""
    open_requests: ConcurrencyLimiter
    """Requests of each network address, including those whose body is still arriving."""
    streams: ConcurrencyLimiter
    """Streams of each signed-in user."""
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is asked to stop: streams end, and the readiness probe fails."""
