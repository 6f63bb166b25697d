"""Starts the services behind the gateway while the gateway itself starts.

When the whole platform is scaled to zero, the services would start one after the other, each when another one calls it.
The gateway starts because a request waits, so it pings the services that the request needs, and all start at the same
time. This module uses threads and plain sockets, because it runs before other imports: they take as long as a start.
"""

from __future__ import annotations

import contextlib
import socket
import time
from threading import Thread

_PAUSE = 0.1


def prewarm(groups: str, seconds: float = 15.0) -> Thread:
    """Ping each `host:port` (comma-separated) until it answers, for at most `seconds` a group.

    Groups are separated by semicolons. They are pinged one after the other, so that services that are needed later take
    no CPU time from those that are needed first. Returns the thread that pings.
    """
    walk = Thread(target=_each_group, args=[groups.split(";"), seconds], daemon=True)
    walk.start()
    return walk


def _each_group(groups: list[str], seconds: float) -> None:
    for group in groups:
        deadline = time.monotonic() + seconds
        asking = [Thread(target=_ping, args=[address.strip(), deadline], daemon=True) for address in group.split(",")]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()


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
