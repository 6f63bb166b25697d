"""A part that is nothing but its health: `python -m knative.local.tests.fake_part`, told by variables.

HTTP_PORT where to listen, unless HTTP_FD is a socket that listens; FAIL_FIRST exits with 3 while a file of that name
does not exist yet, and makes it; STUBBORN ignores SIGTERM; SAY is written to the log at the start; LAST_WORDS is a file
that gets its NAME when it ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """Answers every GET with 200, or ends the process at /die."""

    def do_GET(self) -> None:
        """Answers."""
        if self.path == "/die":
            os._exit(7)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ.get("ANSWER", "ok").encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Says nothing."""


def main() -> None:
    """Serves until SIGTERM."""
    if (marker := os.environ.get("FAIL_FIRST")) and not Path(marker).exists():
        Path(marker).touch()
        sys.exit(3)
    sys.stdout.write(os.environ.get("SAY", "started") + "\n")
    sys.stdout.flush()
    fd = os.environ.get("HTTP_FD")
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["HTTP_PORT"])), Handler, bind_and_activate=not fd)
    if fd:
        server.socket = socket.socket(fileno=int(fd))
    if os.environ.get("STUBBORN"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.02)
    if file := os.environ.get("LAST_WORDS"):
        with Path(file).open("a") as last:
            last.write(os.environ["NAME"] + "\n")


if __name__ == "__main__":
    main()
