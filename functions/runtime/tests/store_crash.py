"""A process for test_store_sqlite.py: writes to the store at the path given, as fast as it can, until it is killed.

It prints the id and version of each update that was acknowledged.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from events.catalog import Payload
from functions.runtime.clock import SystemClock
from functions.runtime.store.sqlite.store import SQLiteStore
from functions.runtime.tests.store_kinds import MAPPINGS, Counter, happened, inbox_record


async def write(store: SQLiteStore, worker: int) -> None:
    """Count up the counters of one worker, for ever."""
    number = 0
    while True:
        number += 1
        key = f"{worker}-{number % 3}"

        def change(counter: Counter | None, key: str = key) -> tuple[Counter, Sequence[Payload]]:
            counter = counter or Counter(key)
            counter.left += 1
            return counter, [happened(worker * 1000 + counter.left)]

        done = await store.update(Counter, key, change, idempotency=inbox_record(f"{worker}-{number}"))
        sys.stdout.write(f"{done.id} {done.version}\n")
        sys.stdout.flush()


async def main() -> None:
    """Sixteen workers at once."""
    store = SQLiteStore(Path(sys.argv[1]), MAPPINGS, SystemClock())
    await asyncio.gather(*(write(store, worker) for worker in range(1, 17)))


if __name__ == "__main__":
    asyncio.run(main())
