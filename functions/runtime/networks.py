"""Network addresses as keys of limits."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network


@lru_cache(maxsize=10_000)
def network_key(address: str) -> str:
    """Return what limits count an address by.

    It is the /64 of an IPv6 address, because a customer has a /64. An IPv4-mapped IPv6 address counts as its IPv4
    address: all of them share one /64. Any other text is its own key.
    """
    if ":" not in address:
        return address
    try:
        given = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(given.ipv4_mapped or IPv6Network((given, 64), strict=False))
