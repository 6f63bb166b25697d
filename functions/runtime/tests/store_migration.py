"""A process for test_store_files.py: opens the store at the path given, and is killed before its n-th statement that
changes the file. Without such a statement it ends well.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from functions.runtime.clock import SystemClock
from functions.runtime.store.sqlite.store import SQLiteStore
from functions.runtime.tests.store_kinds import MAPPINGS

_left = int(sys.argv[2])


class Doomed(sqlite3.Connection):
    """Counts the statements between BEGIN and COMMIT, both included."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        global _left  # noqa: PLW0603 - the process is made for this
        if self.in_transaction or sql.startswith("BEGIN"):
            _left -= 1
            if _left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(sql, *values)


SQLiteStore(Path(sys.argv[1]), MAPPINGS, SystemClock(), connection=Doomed)
sys.stdout.write("opened\n")
