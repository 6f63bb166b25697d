"""Waking the services behind the gateway while it still starts itself.

On a platform that is wholly at zero each service would start when the one before it calls it, one after the other. A
gateway that starts has a request to answer, so what it will need is asked for at once, and all start side by side.
Threads and plain sockets, because it runs before anything else is imported: the imports take as long as such a start.
"""

from __future__ import annotations

import contextlib
import socket
import time
from threading import Thread

_PAUSE = 0.1


def wake(addresses: str, seconds: float = 15.0) -> list[Thread]:
    """Ask each `host:port` (comma-separated) for anything, until it answers or `seconds` are over; wait for nothing."""
    deadline = time.monotonic() + seconds
    threads = [
        Thread(target=_knock, args=[address.strip(), deadline], daemon=True)
        for address in addresses.split(",")
        if address.strip()
    ]
    for thread in threads:
        thread.start()
    return threads


def _knock(address: str, deadline: float) -> None:
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
        # In a mesh the proxy beside us may still be starting, and takes no connection yet.
        time.sleep(_PAUSE)
