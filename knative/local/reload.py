"""Restart parts when their sources change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from knative.local.parts import Part

MANIFESTS: Final = "knative/base"
_WATCHED: Final = ("functions", "gateway", "events", "observability", "proto", "knative/local/broker", MANIFESTS)


def affected(parts: Sequence[Part], changed: Iterable[str]) -> list[Part]:
    """Return the parts that the changed paths (relative to the repository) affect. Changed tests affect no part.

    A path belongs to the innermost source folder. So a change in events/dead_letters restarts only the broker, and one
    elsewhere in events restarts all parts.
    """
    folders = {folder for part in parts for folder in part.sources}
    touched = {
        max((folder for folder in folders if path.startswith(f"{folder}/")), key=len, default="")
        for path in changed
        if path.endswith(".py") and "tests" not in path.split("/")
    }
    return [part for part in parts if touched.intersection(part.sources)]


async def watch(root: Path, report: Callable[[list[str]], None]) -> None:
    """Call `report` with each batch of changed paths (relative to `root`), until cancelled."""
    async for batch in _batches(root):
        report(sorted(batch))


async def _batches(root: Path) -> AsyncIterator[set[str]]:
    # Imported only with --reload.
    import watchfiles

    folders = [root / name for name in _WATCHED if (root / name).exists()]
    async for changes in watchfiles.awatch(*folders, debounce=200, step=50):
        yield {Path(path).relative_to(root).as_posix() for _, path in changes}
