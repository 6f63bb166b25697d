"""Setup for the containers of compose.yaml, which have no cluster.

Writes Secrets as files, generates the broker's configuration from the Triggers, and sends the PingSources' events.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from knative.local import manifests, parts, ports, timers
from knative.setup.secrets import Folder, fill


def local(base: Path) -> parts.Local:
    """Return the addresses for the manifests in `base`: each part has its documented port, on a host with the part's
    name.
    """
    read = manifests.load(base)
    numbers = ports.fixed(parts.domains(read))
    return parts.Local(read, ports.Ports(numbers.http, numbers.grpc, {name: name for name in numbers.http}))


def prepare(base: Path, folder: Path, admin_email: str) -> list[str]:
    """Write the broker's configuration, create missing secrets, and return the names of the created secrets."""
    (folder / "broker").mkdir(exist_ok=True)
    (folder / "broker" / "broker.yaml").write_text(local(base).broker_config())
    return fill(Folder(folder), admin_email, parts.callers(manifests.load(base)))


async def tick(base: Path) -> None:
    """Send the PingSources' events, until cancelled."""
    ticks = list(local(base).ticks())
    for each in ticks:
        timers.check(each)
    await asyncio.gather(*(timers.run(each, _warn) for each in ticks))


def _warn(text: str) -> None:
    sys.stderr.write(f"{text}\n")
