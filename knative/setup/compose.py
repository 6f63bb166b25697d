"""What a cluster does for the platform, done for the containers of compose.yaml: Secrets as files, the broker's
configuration made of the Triggers, and the clock of the PingSources."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from knative.local import manifests, parts, ports, timers
from knative.setup.secrets import Folder, fill


def local(base: Path) -> parts.Local:
    """The manifests in `base`, with each part at its documented port, on the host of its name."""
    read = manifests.load(base)
    numbers = ports.fixed(parts.domains(read))
    return parts.Local(read, ports.Ports(numbers.http, numbers.grpc, {name: name for name in numbers.http}))


def prepare(base: Path, folder: Path, admin_email: str) -> list[str]:
    """Write the broker's configuration, make what secrets are missing, and name these."""
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
