"""Back up the platform's state while it runs, and restore it.

A backup is a consistent snapshot of all databases. It blocks commits to all of them for some milliseconds, to open a
read transaction on each. Then SQLite's backup copies these snapshots while the platform runs. So in a backup every
event is in its sender's outbox, in the broker, or handled. After a restore the platform continues as it would after a
power failure at the moment of the backup.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from functions.runtime.settings import SettingsError
from functions.runtime.store.epochs import begin_in_file
from functions.runtime.store.port import NotAvailable
from functions.runtime.store.postgres.local import Urls
from functions.runtime.store.sqlite.file import check
from knative.local import postgres
from knative.local.data import Data, DataInUse

ROOT: Final = Path(__file__).parents[2]
_DATABASES: Final = ("store/*.db", "broker/*.db")
_FILES: Final = ("secrets/*", "secrets/*/*", "first-start*")
_DUMP: Final = "postgres.dump"
_MANIFEST: Final = "backup.json"
_PAGES: Final = 4096  # pages copied at a time
_LOCK_TIMEOUT: Final = 10.0  # seconds


class BackupFailed(Exception):
    """Nothing was backed up or restored; the message says why."""


def backup(data: Path, to: Path, database_url: str = "") -> None:
    """Copy the platform's state from `data` to the new folder `to`, and check the copy. Raises BackupFailed.

    State on PostgreSQL is copied from `database_url`, or from the server in the folder `data` if that is empty.
    """
    names = _found(data, _DATABASES)
    on_postgres = bool(database_url) or (data / "postgres" / "data").exists()
    if not on_postgres and not any(name.startswith("store/") for name in names):
        raise BackupFailed(f"There is no state in {data} (DynamoDB has backups of its own).")
    if to.exists():
        raise BackupFailed(f"{to} is there already: a backup is never written over another.")
    draft = to.with_name(to.name + ".unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    files = _found(data, _FILES)
    for name in (*names, *files):
        (draft / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with ExitStack() as stack:
            urls = stack.enter_context(postgres.reached(data / "postgres", database_url)) if on_postgres else None
            snapshots, dumped = stack.enter_context(_snapshots([data / name for name in names], urls))
            for name in files:
                shutil.copy2(data / name, draft / name)
            for name, snapshot in zip(names, snapshots, strict=True):
                _copy(snapshot, draft / name)
            if urls and dumped:
                postgres.dump(urls, dumped, draft / _DUMP)
                postgres.check(draft / _DUMP)
    except (sqlite3.Error, NotAvailable) as error:
        raise BackupFailed(f"The state cannot be read: {error}") from error
    manifest = {
        "at": datetime.now(UTC).isoformat(),
        "databases": names,
        "files": files,
        "dumps": [_DUMP] if on_postgres else [],
    }
    (draft / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    draft.rename(to)


def restore(data: Path, source: Path, database_url: str = "") -> Path | None:
    """Replace the state in `data` by a backup.

    State on PostgreSQL is restored to `database_url`, or to the server in the folder `data` if that is empty. Returns
    the folder with the replaced state, or None if there was none. Raises BackupFailed for an incomplete backup, and
    DataInUse if a platform runs on `data`.
    """
    try:
        manifest = json.loads((source / _MANIFEST).read_text())
        names = [*manifest["databases"], *manifest["files"]]
        dumps = manifest.get("dumps", [])  # earlier releases had none
    except (OSError, ValueError, KeyError) as error:
        raise BackupFailed(f"{source} is not a backup: it has no {_MANIFEST} that can be read.") from error
    for name in manifest["databases"]:
        if not (source / name).exists():
            raise BackupFailed(f"{source} is incomplete: {name} is missing.")
        check(source / name)
    for name in dumps:
        postgres.check(source / name)
    Data(data).hold()
    fresh = data / "restoring"
    shutil.rmtree(fresh, ignore_errors=True)
    for name in names:
        (fresh / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copy2(source / name, fresh / name)
    for path in sorted(fresh.glob("store/*.db")):
        begin_in_file(path)  # makes tokens, versions and cursors from before the restore invalid
    for name in dumps:
        with postgres.reached(fresh / "postgres", database_url) as urls:
            postgres.load(urls, source / name, lambda _: None)
    replaced = data / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    old = (*(data / name for name in ("store", "postgres", "broker", "secrets")), *data.glob("first-start*"))
    for path in filter(Path.exists, old):
        replaced.mkdir(exist_ok=True, mode=0o700)
        path.rename(replaced / path.name)
    for path in list(fresh.iterdir()):
        path.rename(data / path.name)
    fresh.rmdir()
    return replaced if replaced.exists() else None


@contextmanager
def _snapshots(paths: Sequence[Path], urls: Urls | None) -> Iterator[tuple[list[sqlite3.Connection], str | None]]:
    """Open a snapshot of each database, all at the same moment.

    Yields the SQLite snapshots, and the id of PostgreSQL's snapshot or None.
    """
    with ExitStack() as stack:
        with ExitStack() as gates:
            for path in paths:
                gate = gates.enter_context(_connected(path))
                gate.execute("BEGIN IMMEDIATE")  # blocks commits to this file
            snapshots = []
            for path in paths:
                snapshot = stack.enter_context(_connected(path))
                snapshot.execute("BEGIN")
                snapshot.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()  # the snapshot begins with a read
                snapshots.append(snapshot)
            # PostgreSQL still accepts commits here. That is safe: the broker cannot commit while the gates are closed,
            # so each event is in the outbox of PostgreSQL's snapshot or already in the broker's.
            dumped = stack.enter_context(postgres.snapshot(urls)) if urls else None
        yield snapshots, dumped


def _connected(path: Path) -> closing[sqlite3.Connection]:
    uri = f"{path.resolve().as_uri()}?mode=rw"
    return closing(sqlite3.connect(uri, uri=True, timeout=_LOCK_TIMEOUT, isolation_level=None))


def _copy(snapshot: sqlite3.Connection, to: Path) -> None:
    def progress(_: int, left: int, total: int) -> None:
        if total > _PAGES:
            sys.stderr.write(f"\r  {to.name}: {100 * (total - left) // total} %" + ("\n" if left == 0 else ""))

    with closing(sqlite3.connect(to)) as target:
        snapshot.backup(target, pages=_PAGES, progress=progress)
        (found,) = target.execute("PRAGMA integrity_check(1)").fetchone()
    to.chmod(0o600)
    if found != "ok":
        raise BackupFailed(f"{to.name} is damaged: {found}")


def _found(data: Path, patterns: Sequence[str]) -> list[str]:
    return sorted(str(path.relative_to(data)) for pattern in patterns for path in data.glob(pattern) if path.is_file())


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit status."""
    arguments = _parser().parse_args(argv)
    folder, database_url = arguments.folder, os.environ.get("DATABASE_URL", "")
    try:
        if arguments.command == "backup":
            folder = folder or ROOT / "backups" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
            backup(arguments.data, folder, database_url)
            sys.stdout.write(f"Backed up to {folder}\n")
            return 0
        if folder is None:
            raise BackupFailed("Which backup? make restore FROM=" + _latest())
        replaced = restore(arguments.data, folder, database_url)
    except (BackupFailed, DataInUse, SettingsError, NotAvailable, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"Restored {folder}" + (f"; what was there is in {replaced}\n" if replaced else "\n"))
    return 0


def _latest() -> str:
    return max(map(str, (ROOT / "backups").glob(f"*/{_MANIFEST}")), default="FOLDER").removesuffix(f"/{_MANIFEST}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make backup", description=__doc__)
    parser.add_argument("command", choices=["backup", "restore"])
    parser.add_argument(
        "folder", nargs="?", type=Path, help="the backup's folder (by default a new one: backups/<time>)"
    )
    parser.add_argument("--data", type=Path, default=ROOT / ".data", metavar="DIR", help="the data folder of make up")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
