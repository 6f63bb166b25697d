"""Run DynamoDB Local with its data in the platform's folder: `--store dynamodb`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from functions.runtime.store.dynamodb.local import CREDENTIALS, answers, free_port, install
from knative.local import database

_STOP_SECONDS: Final = 10.0


@contextmanager
def running(folder: Path, log: Path) -> Iterator[dict[str, str]]:
    """Context manager that runs DynamoDB Local; yields the environment variables for the parts. Raises NotAvailable."""
    install()
    port = free_port()
    words = ("functions.runtime.store.dynamodb.local", str(port), str(folder))
    with database.running("DynamoDB Local", words, log, lambda: answers(port), _STOP_SECONDS):
        yield {"STORE_URL": f"dynamodb://shop-?endpoint=http://127.0.0.1:{port}", **CREDENTIALS}
