"""`python -m knative.setup COMMAND`: set up a cluster or the containers of compose.yaml, and rotate keys.

- `secrets SERVICE...` fills the platform's Secrets; `keys SERVICE...` creates key pairs as files in SECRETS_DIR.
- `catalogue` loads the demo catalogue.
- `migrate STORE...` migrates the schemas of the stores on PostgreSQL.
- `rotate announce|switch|retire SERVICE` runs one step of the rotation of a service's key. The secrets are in the
  folder SECRETS_DIR (`.data/secrets` of `make up`), or in the cluster if it is not set. Restart all parts after each
  step.
- For compose.yaml, `prepare` writes secrets and the broker's configuration to files; `tick` sends the sweeps' events.

All commands can be repeated: they do not create existing secrets, keys or products again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from knative.setup.secrets import Cluster, Folder, announce, fill, fill_id, fill_keys, fill_passwords, retire, switch


def secrets() -> None:
    """Create missing key pairs for the services in the arguments, and a password for the administrator ADMIN_EMAIL.

    Also creates what is missing of two settings: a password of the store for each name in STORE_SECRETS, and an id in
    the Secret that VOLUMES_SECRET names.
    """
    cluster = Cluster.from_inside()
    made = fill_passwords(cluster, os.environ.get("STORE_SECRETS", "").split())
    if volumes := os.environ.get("VOLUMES_SECRET"):
        made += fill_id(cluster, volumes)
    made += fill(cluster, os.environ["ADMIN_EMAIL"], sys.argv[2:])
    _say(f"made: {', '.join(made) or 'nothing, all is there'}")


def migrate() -> None:
    """Migrate the schemas on PostgreSQL of the stores in the arguments (functions.runtime.store.postgres.migrate)."""
    from functions.runtime.store.postgres.migrate import main  # only this command needs it

    sys.exit(main(sys.argv[2:]))


def catalogue() -> None:
    """Load the demo catalogue at SHOP_URL, as ADMIN_EMAIL with ADMIN_PASSWORD.

    Retries for PATIENCE_SECONDS (300), because the platform may still be starting.
    """
    from knative.local.seed import SeedFailed, seed  # only this command needs it

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
    """Write the broker's configuration for the manifests in MANIFESTS, and missing secrets, to SETUP_DIR."""
    from knative.setup.compose import prepare  # not needed in a cluster

    folder = Path(os.environ["SETUP_DIR"])
    if "admin" in prepare(Path(os.environ["MANIFESTS"]), folder, os.environ["ADMIN_EMAIL"]):
        password = (folder / "admin" / "password").read_text()
        _say(f"administrator: {os.environ['ADMIN_EMAIL']}, password: {password}   (shown this once)")


def tick() -> None:
    """Send the events of the PingSources in MANIFESTS, until SIGTERM."""
    from knative.setup.compose import tick  # not needed in a cluster

    # Process 1 of a container ignores SIGTERM by default.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(tick(Path(os.environ["MANIFESTS"])))


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def keys() -> None:
    """Create missing key pairs for the services in the arguments, as files in SECRETS_DIR."""
    made = fill_keys(Folder(Path(os.environ["SECRETS_DIR"])), sys.argv[2:])
    _say(f"made: {', '.join(made) or 'nothing, all is there'}")


def rotate() -> None:
    """Run one step of the rotation of a service's key."""
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
    "migrate": migrate,
    "prepare": prepare,
    "tick": tick,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python -m knative.setup {'|'.join(COMMANDS)}")
    COMMANDS[sys.argv[1]]()
