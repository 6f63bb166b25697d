"""Epochs. A restore begins a new epoch, in which nothing that was issued before the restore is accepted.

Without a new epoch, versions would be reused for other contents, and tokens, cursors and ETags from before the restore
would still be accepted. `make restore` begins a new epoch itself. After a restore by the database's own means
(point-in-time recovery), run `make epoch` (`python -m functions.runtime.store.epochs`) with its STORE_URL
while no service runs.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from functions.runtime.settings import RuntimeSettings, SettingsError, load


def next_epoch(last: int, now: datetime) -> int:
    """Return the epoch of a restore at `now`: a number of milliseconds since 1970 that is greater than `last`.

    The epoch is a time and not a counter, because a backup may be older than the last restore. It is greater than any
    version written since the last epoch, because an entity is written less than a thousand times per second.
    """
    return max(last + 1, int(now.timestamp() * 1000))


def begin_in_file(path: Path) -> int:
    """Begin a new epoch in a SQLite file that no process has open. Returns the epoch. Raises StoreFileError."""
    import sqlite3  # import only what the store in use needs

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
    from functions.runtime.store.dynamodb import layout  # import only what the store in use needs

    key = layout.epoch_key()
    found = client.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")  # type: ignore[attr-defined] # boto3's client
    epoch = next_epoch(layout.epoch_of(found), datetime.now(UTC))
    client.put_item(TableName=table, Item=layout.epoch_item(epoch))  # type: ignore[attr-defined] # as above
    return epoch


def begin(store_url: str) -> dict[str, int]:
    """Begin a new epoch in every domain's store at STORE_URL. Raises SettingsError.

    Returns the epochs by file, schema or table.
    """
    scheme, _, rest = store_url.partition(":")
    if scheme == "sqlite" and rest.startswith("///"):
        paths = sorted(Path(rest.removeprefix("///")).glob("*.db"))
        return {path.name: begin_in_file(path) for path in paths}
    from functions.runtime.store.dynamodb.client import Connection, dynamodb_url, make_client
    from functions.runtime.store.dynamodb.tables import definition

    if scheme == "postgresql":
        from functions.runtime.store.postgres.migrate import Settings, begin_epochs

        return asyncio.run(begin_epochs(load(Settings, os.environ), definition()[0]))
    if scheme != "dynamodb":
        raise SettingsError("STORE_URL: must be sqlite:///folder, postgresql://host/database or dynamodb://prefix")
    address = dynamodb_url(store_url)
    client = make_client(Connection(address.endpoint, address.region))
    tables = [address.prefix + name for name in definition()[0]]
    return {table: begin_in_table(client, table) for table in tables}


def main() -> int:
    """Begin new epochs. Returns 0 if every store has one; otherwise prints the reason and returns 1."""
    import asyncpg  # these are imported only for this command
    from botocore.exceptions import BotoCoreError, ClientError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        for name, epoch in begin(load(RuntimeSettings, os.environ).store_url).items():
            sys.stdout.write(f"{name}: epoch {epoch}\n")
    except (SettingsError, BotoCoreError, ClientError, asyncpg.PostgresError, SQLAlchemyError, OSError) as error:
        sys.stderr.write(f"No new epoch: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
