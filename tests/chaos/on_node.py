"""What a privileged pod does on its node. It needs Python's standard library alone, since it is sent there as text.

    python3 -c "$(cat on_node.py)" kill '{"containers": ["..."]}'

Each command takes its arguments as JSON, and prints what happened as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_NEW_ROUTE, _DELETE_ROUTE = 24, 25
_REQUEST, _ACK, _CREATE, _EXCLUSIVE = 0x1, 0x4, 0x400, 0x200
_MAIN_TABLE, _BOOT, _LINK_SCOPE, _UNIVERSE, _BLACKHOLE = 254, 3, 253, 0, 6
_DESTINATION = 1
_NETWORK_NAMESPACE = 0x40000000


def processes(containers: list[str]) -> list[int]:
    """Return the processes of these containers, by their ids."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                groups = (folder / "cgroup").read_text()
                if any(container in groups for container in containers):
                    found.append(int(folder.name))
    return found


def kill(containers: list[str]) -> dict[str, Any]:
    """Send SIGKILL to every process of these containers; return how many there were."""
    killed = 0
    for pid in processes(containers):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return {"killed": killed}


def cut(containers: list[str], addresses: list[str]) -> dict[str, Any]:
    """Drop what the pod of these containers sends to these addresses, also on open connections."""
    return {"cut": _routes(containers, addresses, _NEW_ROUTE, _REQUEST | _ACK | _CREATE | _EXCLUSIVE)}


def mend(containers: list[str], addresses: list[str]) -> dict[str, Any]:
    """Undo `cut`."""
    return {"mended": _routes(containers, addresses, _DELETE_ROUTE, _REQUEST | _ACK)}


def _routes(containers: list[str], addresses: list[str], kind: int, flags: int) -> int:
    """Add or delete a blackhole for each address in the network namespace of a pod; return how many changed."""
    pids = processes(containers)
    if not pids:
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{pids[0]}/ns/net").open() as namespace:
        if libc.setns(namespace.fileno(), _NETWORK_NAMESPACE):
            raise OSError(ctypes.get_errno(), "setns")
    changed = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        for address in addresses:
            scope = _UNIVERSE
            route = struct.pack(
                "=BBBBBBBBI", socket.AF_INET, 32, 0, 0, _MAIN_TABLE, _BOOT, scope, _BLACKHOLE, 0
            ) + struct.pack("=HH4s", 8, _DESTINATION, socket.inet_aton(address))
            netlink.send(struct.pack("=IHHII", 16 + len(route), kind, flags, 1, 0) + route)
            error = struct.unpack_from("=i", netlink.recv(4096), 16)[0]
            changed += error == 0
    return changed


if __name__ == "__main__":
    done = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps(done))
