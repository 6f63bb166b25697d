"""Starts the services behind the gateway before it calls them.

When the whole platform is scaled to zero, the services would start one after the other, each when another one calls it.
The gateway starts because a request waits, so it pings the services that an order needs, and all start at the same
time. This module uses threads and plain sockets, because it runs before other imports: they take as long as a start.
"""

from __future__ import annotations

import contextlib
import socket
import time
from threading import Thread

_PAUSE = 0.1


def prewarm(addresses: str, seconds: float = 15.0) -> list[Thread]:
    """Ping each `host:port` (comma-separated) until it answers, for at most `seconds`. Returns the threads."""
    deadline = time.monotonic() + seconds
    pings = [Thread(target=_ping, args=[it.strip(), deadline], daemon=True) for it in addresses.split(",") if it]
    for ping in pings:
        ping.start()
    return pings


def _ping(address: str, deadline: float) -> None:
    host, _, port = address.rpartition(":")
    request = f"GET /healthz/live HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    while port.isdigit() and (left := deadline - time.monotonic()) > 0:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host, int(port)), left) as connection,
        ):
            connection.sendall(request.encode())
            if connection.recv(1):
                return
        # In a mesh, the sidecar proxy may still be starting and refuse connections.
        time.sleep(_PAUSE)
