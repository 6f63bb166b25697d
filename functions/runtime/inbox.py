"""Inbox marks: an event takes effect once, because its mark commits with the effect."""

from __future__ import annotations

from datetime import timedelta

from functions.runtime.store.port import Once

KEPT = timedelta(days=7)
"""Far longer than any broker retries; a dead letter replayed later still finds its effect in the entity's
state.
"""


def mark(source: str, event_id: str) -> Once:
    """The mark of one CloudEvent: source and id identify it (CloudEvents 1.0, section 3.1.1)."""
    return Once(f"inbox:{source}:{event_id}", KEPT)
