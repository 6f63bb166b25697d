"""Network addresses as keys of limits."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Network


@lru_cache(maxsize=10_000)
def network_key(address: str) -> str:
    """Return what limits count an address by: the /64 of an IPv6 address, because a customer has a /64.

    Any other text is its own key.
    """
    if ":" not in address:
        return address
    try:
        return str(IPv6Network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address
