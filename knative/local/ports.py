"""Choose the ports of the parts, and check that they are free."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
GATEWAY: Final = 8080
BROKER: Final = 8090
CONSOLE: Final = 8091
DOMAINS: Final = {
    "users": 1,
    "orders": 2,
    "products": 3,
    "payments": 4,
    "notifications": 5,
}  # one a line, because `make new-service` adds lines
HTTP, GRPC = 8080, 9080


class PortTaken(RuntimeError):
    """Another process uses a port; the message names the ports and processes, and says what to do."""


@dataclass(frozen=True)
class Ports:
    """The ports of the parts, by part name; only domains have gRPC ports. `hosts` lists parts on other hosts."""

    http: Mapping[str, int]
    grpc: Mapping[str, int]
    hosts: Mapping[str, str] = field(default_factory=dict)

    def at(self, part: str, *, grpc: bool = False) -> str:
        """Return host:port of a part's HTTP or gRPC server."""
        return f"{self.hosts.get(part, HOST)}:{(self.grpc if grpc else self.http)[part]}"

    def everyone(self) -> Iterable[tuple[int, str]]:
        """Yield each port with a description of its use."""
        yield from ((port, name) for name, port in self.http.items())
        yield from ((port, f"{name}, gRPC") for name, port in self.grpc.items())


def fixed(domains: Iterable[str], offset: int = 0) -> Ports:
    """Return the documented ports.

    Domains without a documented port get the ports after the last documented domain, in order of name. `offset` is
    added to every port.
    """
    numbers = dict(DOMAINS)
    for domain in sorted(set(domains) - set(DOMAINS)):
        last = max(numbers.values())
        # Skips the ports of the broker and the console.
        numbers[domain] = last + (3 if HTTP + last + 1 == BROKER else 1)
    chosen = {name: number for name, number in numbers.items() if name in set(domains)}
    http = {"gateway": GATEWAY, "broker": BROKER, "console": CONSOLE} | {name: HTTP + n for name, n in chosen.items()}
    return Ports(
        {name: port + offset for name, port in http.items()},
        {name: GRPC + number + offset for name, number in chosen.items()},
    )


def free(domains: Iterable[str]) -> Ports:
    """Return currently unused ports, so that several platforms can run."""
    names = list(domains)
    held = [socket.create_server((HOST, 0)) for _ in range(3 + 2 * len(names))]
    numbers = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    http = dict(zip(["gateway", "broker", "console", *names], numbers, strict=False))
    return Ports(http, dict(zip(names, numbers[3 + len(names) :], strict=True)))


def check(ports: Ports) -> None:
    """Raise PortTaken if another process uses one of the ports."""
    taken = [(port, name) for port, name in ports.everyone() if _is_taken(port)]
    if taken:
        lines = [f"Port {port} ({name}) is taken{_holder(port)}." for port, name in taken]
        advice = "Stop what holds it, or move all ports: make up ARGS=--port-offset=100"
        raise PortTaken("\n".join([*lines, advice]))


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        # Servers set this option, too: with it, a port with connections in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return True
            raise
    return False


def _holder(port: int) -> str:
    """Return ` by pid N: <command>` if the system shows the process (Linux), else ""."""
    inodes = _listeners(port)
    for folder in Path("/proc").glob("[0-9]*/fd") if inodes else ():
        with suppress(OSError):
            for link in folder.iterdir():
                if str(link.readlink()) in inodes:
                    command = (folder.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    return f" by pid {folder.parent.name}: {command[:80]}"
    return ""


def _listeners(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for row in Path(table).read_text().splitlines()[1:]:
                columns = row.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{columns[9]}]")
    return found
