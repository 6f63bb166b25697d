"""The platform on a machine whose environment names proxies: they get not one of its own calls."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from knative.local.demo.shop import Shop
from tests.e2e.observed.stories import place, stocked
from tests.e2e.platform import LocalPlatform


class Proxy:
    """Takes connections, keeps what is asked first, and hangs up."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(1000))

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.close()


@pytest.fixture
def behind_a_proxy(tmp_path_factory: pytest.TempPathFactory, proxy: Proxy) -> Iterator[LocalPlatform]:
    names = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    environ = {**dict.fromkeys(names, proxy.url), "no_proxy": "", "NO_PROXY": ""}
    folder = tmp_path_factory.mktemp("proxied") / "data"
    platform = LocalPlatform(folder, "--no-seed", **environ)  # with the console, so that spans are exported
    platform.start()
    yield platform
    assert platform.stop() == 0, platform.output()


async def test_an_order_goes_its_way_past_the_proxy(behind_a_proxy: LocalPlatform, proxy: Proxy) -> None:
    async with Shop(behind_a_proxy.base_url) as shop:
        product = await stocked(shop, behind_a_proxy)
        customer = await shop.register()
        placed = await place(shop, customer, product, "tok_ok")
        assert (await shop.settled(customer, placed["id"]))["status"] == "CONFIRMED"
        admin = await shop.login(behind_a_proxy.admin_email, behind_a_proxy.admin_password)
        await shop.call("GET", "/v1/admin/dead-letters", who=admin)
    assert proxy.asked == []
