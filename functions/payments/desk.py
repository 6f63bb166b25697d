"""What the use cases of this domain work with, handed over as one argument."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from functions.payments.clients import Orders
from functions.payments.provider import Provider, Webhook
from functions.runtime.clock import Clock
from functions.runtime.currencies import SIMULATED, ProviderLimits
from functions.runtime.store.port import Store


@dataclass(frozen=True)
class Desk:
    """`settle_after`: what is pending for longer is taken for forgotten, and taken up again. `webhook` is None where
    the provider says nothing of its own accord. `limits` is what the provider charges and gives back.
    """

    store: Store
    provider: Provider
    orders: Orders
    clock: Clock
    settle_after: timedelta = timedelta(seconds=15)
    webhook: Webhook | None = None
    limits: ProviderLimits = SIMULATED
