"""`make load`: load on a running platform, in an open loop, with the platform's invariants checked at the end."""
