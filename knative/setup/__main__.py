"""`python -m knative.setup secrets` fills the platform's Secrets, `catalogue` loads the demo catalogue.

Both may run any number of times: what is there is left alone.
"""

from __future__ import annotations

import os
import sys
import time

from knative.setup.secrets import Cluster, fill


def secrets() -> None:
    """ADMIN_EMAIL names the first administrator."""
    made = fill(Cluster.from_inside(), os.environ["ADMIN_EMAIL"])
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


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


COMMANDS = {"secrets": secrets, "catalogue": catalogue}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python -m knative.setup {'|'.join(COMMANDS)}")
    COMMANDS[sys.argv[1]]()
