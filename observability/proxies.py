"""Select the proxy for an outgoing call: none inside the platform, the environment's outside."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

_INSIDE = (".svc", ".cluster.local", ".localhost")


def proxy_for(url: str) -> str | None:
    """Return the proxy for `url` by http_proxy, https_proxy, all_proxy and no_proxy; None: call directly.

    Loopback, names without a dot (containers) and a cluster's services are inside: no proxy reaches them.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_inside(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies_environment()
    return proxies.get(parts.scheme) or proxies.get("all")


def is_inside(host: str) -> bool:
    """Return whether a host is this machine, a container beside it, or in this cluster."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return "." not in host or host.endswith(_INSIDE)
