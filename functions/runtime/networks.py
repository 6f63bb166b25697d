"""Network addresses as keys of limits."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network


@lru_cache(maxsize=10_000)
def network_key(address: str) -> str:
    """Return the key under which limits count a network address.

    For an IPv6 address it is the /64 network, because a customer usually has a whole /64. For an IPv4-mapped IPv6
    address it is the IPv4 address, because all mapped addresses are in one /64. Any other text is its own key.
    """
    if ":" not in address:
        return address
    try:
        given = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(given.ipv4_mapped or IPv6Network((given, 64), strict=False))
