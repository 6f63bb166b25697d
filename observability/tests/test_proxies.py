"""Calls inside the platform go past the environment's proxies, calls outside through them."""

from __future__ import annotations

import pytest

from observability.proxies import proxy_for

PROXY = "http://proxy.example.com:3128"


@pytest.fixture(autouse=True)
def _proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, PROXY)
    monkeypatch.setenv("no_proxy", "quiet.example.com,.corp.example.com")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "http://localhost:4317",
        "http://[::1]:4317",
        "http://dynamodb:8000",
        "http://dynamodb.shop.svc:8000",
        "http://collector.observability.svc.cluster.local:4317",
        "https://quiet.example.com",
        "https://x.corp.example.com/path",
    ],
)
def test_what_is_inside_or_excepted_is_called_directly(url: str) -> None:
    assert proxy_for(url) is None


@pytest.mark.parametrize(
    "url", ["https://api.stripe.com", "https://dynamodb.eu-central-1.amazonaws.com", "http://10.0.0.7:8000"]
)
def test_what_is_outside_is_called_through_the_proxy(url: str) -> None:
    assert proxy_for(url) == PROXY


def test_without_a_proxy_everything_is_called_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("https_proxy")
    assert proxy_for("https://api.stripe.com") is None
    monkeypatch.setenv("all_proxy", "http://all.example.com:1")
    assert proxy_for("https://api.stripe.com") == "http://all.example.com:1"
