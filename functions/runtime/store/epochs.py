"""Epochs: each restore begins a new life of the data, in which nothing issued in the one before is taken for its own.

After a restore the same versions would be given out a second time, for other contents, and tokens, cursors and ETags
of a life that is no more would be accepted. So whoever restores begins a new epoch before anything starts:
`make restore` does so by itself; for a database that was restored by its own means (DynamoDB's point-in-time
recovery) it is `python -m functions.runtime.store.epochs` (`make epoch`) with its STORE_URL, while nothing runs.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from functions.runtime.settings import RuntimeSettings, SettingsError, load


def next_epoch(last: int, now: datetime) -> int:
    """Milliseconds since 1970, above `last`.

    A time and no counter, since what is restored may be older than the last restore: and far above any version that
    writes, fewer than a thousand a second for one entity, can have reached since the epoch before.
    """
    return max(last + 1, int(now.timestamp() * 1000))


def begin_in_file(path: Path) -> int:
    """Begin a new epoch in a SQLite file that no process has open; raises StoreFileError. Returns the epoch."""
    import sqlite3  # only this adapter's cost

    from functions.runtime.store.sqlite.file import SQLiteFile

    file = SQLiteFile(path, sqlite3.Connection)
    try:
        (last,) = file.writer.execute("SELECT began FROM epoch").fetchone()
        epoch = next_epoch(last, datetime.now(UTC))
        file.writer.execute("UPDATE epoch SET began = ?", (epoch,))
    finally:
        file.close()
    return epoch


def begin_in_table(client: object, table: str) -> int:
    """Begin a new epoch in a DynamoDB table. Returns the epoch."""
    from functions.runtime.store.dynamodb import layout  # only this adapter's cost

    key = layout.epoch_key()
    found = client.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")  # type: ignore[attr-defined] # boto3's client
    epoch = next_epoch(layout.epoch_of(found), datetime.now(UTC))
    client.put_item(TableName=table, Item=layout.epoch_item(epoch))  # type: ignore[attr-defined] # as above
    return epoch


def begin(store_url: str) -> dict[str, int]:
    """Begin a new epoch in every domain's store at STORE_URL; the epochs by file or table. Raises SettingsError."""
    scheme, _, rest = store_url.partition(":")
    if scheme == "sqlite" and rest.startswith("///"):
        paths = sorted(Path(rest.removeprefix("///")).glob("*.db"))
        return {path.name: begin_in_file(path) for path in paths}
    if scheme != "dynamodb":
        raise SettingsError("STORE_URL: must be sqlite:///folder or dynamodb://prefix")
    from functions.runtime.store.dynamodb.client import Connection, dynamodb_url, make_client
    from functions.runtime.store.dynamodb.tables import definition

    address = dynamodb_url(store_url)
    client = make_client(Connection(address.endpoint, address.region))
    tables = [address.prefix + name for name in definition()[0]]
    return {table: begin_in_table(client, table) for table in tables}


def main() -> int:
    """The exit code: 0 when every store has its new epoch, 1 when not (it says why)."""
    from botocore.exceptions import BotoCoreError, ClientError  # boto3 only where it is used

    try:
        for name, epoch in begin(load(RuntimeSettings, os.environ).store_url).items():
            sys.stdout.write(f"{name}: epoch {epoch}\n")
    except (SettingsError, BotoCoreError, ClientError) as error:
        sys.stderr.write(f"No new epoch: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
