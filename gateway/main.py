"""`python -m gateway.main`: the gateway as a process.

WAKE lists the services (host:port, comma-separated) to ping while the gateway starts. A semicolon separates the
services that the waiting request calls from those that are needed next.
"""

from __future__ import annotations

import os

from gateway.prewarm import prewarm

if __name__ == "__main__":
    prewarm(os.environ.get("WAKE", ""))
    from gateway.server import main  # heavy imports run while the services start

    main()
