"""The network address of a caller behind trusted proxies."""

from __future__ import annotations

import ipaddress


def client_address(peer: str, forwarded: bytes, hops: int) -> str:
    """Return the network address of the caller.

    `hops` is the number of trusted proxies in front of the gateway. Without proxies, the caller is `peer`. Otherwise
    each proxy has appended one address to X-Forwarded-For, so the caller is the `hops`-th entry from the right. Entries
    to the left of it are ignored, because the caller can forge them. If the header is missing, too short or has no
    valid address there, return `peer`.
    """
    if not hops or not forwarded:
        return peer
    entries = forwarded.decode("latin-1").split(",")
    if len(entries) < hops:
        return peer
    given = entries[-hops].strip()
    if given.count(":") == 1:
        given = given.partition(":")[0]  # IPv4 with a port, as some proxies write it
    try:
        return str(ipaddress.ip_address(given.strip("[]")))
    except ValueError:
        return peer
