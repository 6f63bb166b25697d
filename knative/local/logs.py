"""Follow the log files of the parts. Parts write to files, so that a slow terminal cannot block them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

_POLL_SECONDS: Final = 0.25
KEPT_BYTES: Final = 32 * 1024 * 1024
_CHUNK: Final = 256 * 1024


class LogTail:
    """Calls `show` for each new line. Rotates each file at `kept_bytes` (32 MiB) and keeps one older file."""

    def __init__(self, show: Callable[[str, bytes], None], kept_bytes: int = KEPT_BYTES) -> None:
        self._show = show
        self._kept_bytes = kept_bytes
        self._files: dict[str, tuple[Path, int]] = {}

    def follow(self, name: str, path: Path) -> None:
        """Follow a part's log from its current end."""
        self._files[name] = (path, path.stat().st_size if path.exists() else 0)

    async def run(self) -> None:
        """Follow all logs until cancelled."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            self.catch_up()

    def catch_up(self) -> None:
        """Read all new lines."""
        for name, (path, offset) in self._files.items():
            if path.exists() and path.stat().st_size > offset:
                self._files[name] = (path, self._read(name, path, offset))

    def _read(self, name: str, path: Path, offset: int) -> int:
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(_CHUNK):
                # An incomplete line is read again later, unless it fills the chunk.
                whole = chunk.rfind(b"\n") + 1 or (len(chunk) if len(chunk) == _CHUNK else 0)
                if not whole:
                    break
                for line in chunk[:whole].splitlines():
                    self._show(name, line)
                offset += whole
                file.seek(offset)
        return offset if offset < self._kept_bytes else _rotated(path)


def open_log(path: Path) -> int:
    """Open a log for appending; return the file descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def last_lines(path: Path, count: int) -> list[bytes]:
    """Return the last lines of a log."""
    try:
        return path.read_bytes()[-_CHUNK:].splitlines()[-count:]
    except OSError:
        return []


def _rotated(path: Path) -> int:
    # The part's file descriptor is in append mode, so the part continues at the start of the emptied file.
    shutil.copyfile(path, path.with_suffix(".log.1"))
    os.truncate(path, 0)
    return 0
