"""`python -m gateway.main`: the gateway as a process.

WAKE names the services (host:port, comma-separated) to ping while the gateway starts: before a semicolon those that the
waiting request calls; after it those that are needed next.
"""

from __future__ import annotations

import os

from gateway.prewarm import prewarm

if __name__ == "__main__":
    prewarm(os.environ.get("WAKE", ""))
    from gateway.server import main  # heavy imports run while the services start

    main()
