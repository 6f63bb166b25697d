"""A thousand connections of one address that send a login byte by byte: everybody else logs in."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from knative.local.demo.shop import Shop
from tests.e2e.platform import LocalPlatform

CONNECTIONS = 1050
HEAD = b"POST /v1/sessions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n"


@pytest.fixture
def _files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files, and may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def dribble(local: LocalPlatform) -> None:
    """From another address than the tests': a byte each second, and again when it is cut off."""
    parts = urlsplit(local.base_url)
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port, local_addr=("127.0.0.2", 0))
            try:
                writer.write(HEAD)
                while not writer.is_closing():
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(1)
            finally:
                writer.close()
        await asyncio.sleep(1)


@pytest.mark.usefixtures("_files")
async def test_slow_bodies_of_one_address_stop_nobody_else(local: LocalPlatform, shop: Shop) -> None:
    customer = await shop.register()
    attack = [asyncio.create_task(dribble(local)) for _ in range(CONNECTIONS)]
    try:
        for _ in range(10):
            again = await shop.login(customer.email, customer.password)
            status, _, _ = await shop.raw("GET", "/v1/users/me", who=again)
            assert status == 200
            await asyncio.sleep(0.3)
    finally:
        for each in attack:
            each.cancel()
        await asyncio.gather(*attack, return_exceptions=True)
