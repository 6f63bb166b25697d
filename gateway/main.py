"""`python -m gateway.main`: the gateway as a process."""

from __future__ import annotations

from gateway.serve import main

if __name__ == "__main__":
    main()
