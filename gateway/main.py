"""`python -m gateway.main`: the gateway as a process.

WAKE lists services as host:port, separated by commas, in two groups separated by a semicolon. The first group serves
an order's request and is pinged while the gateway starts. The second handles the order's events.
`gateway.middleware.prewarm` pings both: the first when an order arrives, the second once it is accepted.
"""

from __future__ import annotations

import os

from gateway.prewarm import prewarm

if __name__ == "__main__":
    prewarm(os.environ.get("WAKE", "").partition(";")[0])
    from gateway.server import main  # heavy imports run while the services start

    main()
