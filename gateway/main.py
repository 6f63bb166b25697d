"""`python -m gateway.main`: the gateway as a process.

WAKE lists services (host:port, comma-separated). Those before the first semicolon are pinged while the gateway starts;
`gateway.middleware.prewarm` pings the others.
"""

from __future__ import annotations

import os

from gateway.prewarm import prewarm

if __name__ == "__main__":
    prewarm(os.environ.get("WAKE", "").partition(";")[0])
    from gateway.server import main  # heavy imports run while the services start

    main()
