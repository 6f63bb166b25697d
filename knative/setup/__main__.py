"""`python -m knative.setup secrets SERVICE...` fills the platform's Secrets, `catalogue` loads the demo catalogue.

`rotate announce|switch|retire SERVICE` takes a service's key through a rotation: SECRETS_DIR names a folder of secrets
(`.data/secrets` of `make up`), without it they are the cluster's. Restart all parts after each step.

For compose.yaml, `prepare` writes secrets and the broker's configuration to files, `tick` sends the sweeps' events.

All may run any number of times: what is there is left alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from knative.setup.secrets import Cluster, Folder, announce, fill, fill_keys, retire, switch


def secrets() -> None:
    """ADMIN_EMAIL names the first administrator, the arguments the services that get a key pair."""
    made = fill(Cluster.from_inside(), os.environ["ADMIN_EMAIL"], sys.argv[2:])
    _say(f"made: {', '.join(made) or 'nothing, all is there'}")


def catalogue() -> None:
    """At SHOP_URL, as ADMIN_EMAIL with ADMIN_PASSWORD; waits for a platform that is still starting."""
    from knative.local.seed import SeedFailed, seed  # not needed, and not paid for, by the other command

    deadline = time.monotonic() + float(os.environ.get("PATIENCE_SECONDS", "300"))
    while True:
        try:
            count = seed(os.environ["SHOP_URL"], os.environ["ADMIN_EMAIL"], os.environ["ADMIN_PASSWORD"])
        except (SeedFailed, OSError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"catalogue: {error}")
            _say(f"not yet: {error}")
            time.sleep(3)
        else:
            _say(f"made: {count} products")
            return


def prepare() -> None:
    """From the manifests in MANIFESTS, into SETUP_DIR."""
    from knative.setup.compose import prepare  # no cluster needs it

    folder = Path(os.environ["SETUP_DIR"])
    if "admin" in prepare(Path(os.environ["MANIFESTS"]), folder, os.environ["ADMIN_EMAIL"]):
        password = (folder / "admin" / "password").read_text()
        _say(f"administrator: {os.environ['ADMIN_EMAIL']}, password: {password}   (shown this once)")


def tick() -> None:
    """By the manifests in MANIFESTS, until a signal."""
    from knative.setup.compose import tick  # no cluster needs it

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container has no default
    asyncio.run(tick(Path(os.environ["MANIFESTS"])))


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def keys() -> None:
    """Make the key pairs of the services that the arguments name, as files in SECRETS_DIR."""
    made = fill_keys(Folder(Path(os.environ["SECRETS_DIR"])), sys.argv[2:])
    _say(f"made: {', '.join(made) or 'nothing, all is there'}")


def rotate() -> None:
    """One step of a rotation."""
    step, service = sys.argv[2:]
    folder = os.environ.get("SECRETS_DIR")
    try:
        STEPS[step](Folder(Path(folder)) if folder else Cluster.from_inside(), service)
    except (KeyError, ValueError) as error:
        sys.exit(f"rotate: {error}")
    _say(f"{step}: {service}; restart all parts before the next step")


STEPS = {"announce": announce, "switch": switch, "retire": retire}
COMMANDS = {
    "keys": keys,
    "rotate": rotate,
    "secrets": secrets,
    "catalogue": catalogue,
    "prepare": prepare,
    "tick": tick,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python -m knative.setup {'|'.join(COMMANDS)}")
    COMMANDS[sys.argv[1]]()
