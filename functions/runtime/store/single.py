"""`update` in terms of `transact`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from events.catalog import Payload
from functions.runtime.store.port import Changes, Entity

E = TypeVar("E", bound=Entity)


def single(
    change: Callable[[E | None], tuple[E, Sequence[Payload]]],
) -> Callable[[Sequence[Any]], Changes[E]]:
    """The `change` of `Store.update`, as one of `Store.transact` with one ref."""

    def changes(found: Sequence[Any]) -> Changes[E]:
        entity, events = change(found[0])
        return Changes(entity, (entity,), (), events)

    return changes
