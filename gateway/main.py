"""`python -m gateway.main`: the gateway as a process.

WAKE names what is woken while it starts (host:port, comma-separated), because it will be needed next: before a
semicolon what the waiting request calls, after it what is needed once that is answered, and would slow it meanwhile.
"""

from __future__ import annotations

import os

from gateway.wake import wake

if __name__ == "__main__":
    first, _, then = os.environ.get("WAKE", "").partition(";")
    wake(first)
    from gateway.serve import main  # after what it does not need: see wake

    wake(then)
    main()
