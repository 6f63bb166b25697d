"""Waking the services behind the gateway while it still starts itself.

On a platform that is wholly at zero each service would start when the one before it calls it, one after the other. A
gateway that starts has a request to answer, so what it will need is asked for at once, and all start side by side.
Threads and plain sockets, because it runs before anything else is imported: the imports take as long as such a start.
"""

from __future__ import annotations

import contextlib
import socket
from threading import Thread

_SECONDS = 15.0


def wake(addresses: str) -> list[Thread]:
    """Ask each `host:port` (comma-separated) for anything and wait for nothing; nobody's absence matters."""
    threads = [
        Thread(target=_knock, args=[a.strip()], daemon=True) for a in addresses.split(",") if a.strip()
    ]
    for thread in threads:
        thread.start()
    return threads


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    request = f"GET /healthz/live HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    with (
        contextlib.suppress(OSError, ValueError),
        socket.create_connection((host, int(port)), _SECONDS) as connection,
    ):
        connection.sendall(request.encode())
        connection.recv(1)
