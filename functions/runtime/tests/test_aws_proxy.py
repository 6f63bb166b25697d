"""AWS is outside and called through the environment's proxy; an endpoint inside the platform is called past it."""

from __future__ import annotations

import socket
import threading

import pytest

from functions.runtime.aws import make_client


class Listener:
    """Keeps the first line of what is asked, and hangs up."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self.heard.append(connection.recv(4096).split(b"\r\n")[0])

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.mark.parametrize("inside", [False, True])
def test_only_what_is_outside_is_called_through_the_proxy(monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    proxy, local = Listener(), Listener()
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    retries = {"total_max_attempts": 1}
    client = make_client("dynamodb", "eu-central-1", local.url if inside else None, retries=retries)
    with pytest.raises(Exception, match=r"(?i)connect|closed|proxy"):
        client.list_tables()
    assert bool(proxy.heard) is not inside
    assert bool(local.heard) is inside
    assert inside or proxy.heard[0].startswith(b"CONNECT dynamodb.eu-central-1.amazonaws.com:443 ")
    proxy.close()
    local.close()
