"""Stripe is called through the proxy that the environment names."""

from __future__ import annotations

import asyncio

import pytest

from events.catalog import Money
from functions.payments.providers.stripe_api import StripeApi
from functions.runtime.errors import ServiceError


@pytest.mark.parametrize(("excepted", "asked"), [("", True), ("stripe.invalid", False)])
async def test_stripe_is_called_through_the_environments_proxy(
    monkeypatch: pytest.MonkeyPatch, excepted: str, asked: bool
) -> None:
    heard: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    monkeypatch.setenv("no_proxy", excepted)
    base = "https://api.stripe.com" if asked else "https://stripe.invalid"  # a name that is nobody's
    api = StripeApi("sk_test_not_a_key", base, seconds=2.0, retries=0)
    with pytest.raises(ServiceError):
        await api.create_intent("pay_1", Money(1000, "EUR"))
    await api.close()
    server.close()
    assert bool(heard) is asked
    assert not asked or heard[0].startswith(b"CONNECT api.stripe.com:443 ")
