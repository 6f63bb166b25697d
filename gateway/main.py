"""`python -m gateway.main`: the gateway as a process.

WAKE names what is woken while it starts (host:port, comma-separated), because it will be needed next: before a
semicolon what the waiting request calls; after it, once that has answered, what is needed next.
"""

from __future__ import annotations

import os

from gateway.prewarm import prewarm

if __name__ == "__main__":
    prewarm(os.environ.get("WAKE", ""))
    from gateway.server import main  # after what it does not need: see wake

    main()
