"""Requests to Stripe's own mock, which checks every parameter by Stripe's OpenAPI document.

The mock keeps no state and answers with canned objects; test_stripe.py tests the states.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from events.catalog import Money
from functions.payments.providers.stripe_api import ChargeDeclined, StripeApi, StripeRefused

VERSION = "v0.203.0"
TEN = Money(1000, "EUR")


def build() -> Path:
    """Build stripe-mock with Go, once, in the user's cache; return its path."""
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shop-platform" / f"stripe-mock-{VERSION}"
    )
    cache.mkdir(parents=True, exist_ok=True)
    binary = cache / "stripe-mock"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not binary.exists():
            go = shutil.which("go")
            if go is None:
                pytest.skip("stripe-mock is built by Go, and there is no `go` here")
            run = subprocess.run(
                [go, "install", f"github.com/stripe/stripe-mock@{VERSION}"],
                env={**os.environ, "GOBIN": str(cache)},
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
            if run.returncode:
                pytest.skip(f"stripe-mock could not be built: {run.stderr.strip()[-200:]}")
    return binary


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The address of a running stripe-mock."""
    with subprocess.Popen(
        [build(), "-http-addr", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        address = next(line.split()[-1] for line in process.stdout if "Listening for HTTP" in line)
        yield f"http://{address}"
        process.kill()


@pytest.fixture
async def api(base: str) -> AsyncIterator[StripeApi]:
    adapter = StripeApi("sk_test_123", base, 10.0, retries=0)
    yield adapter
    await adapter.close()


async def test_requests_for_intents_are_valid(api: StripeApi) -> None:
    made = await api.create_intent("pay_1", TEN)
    for token in ("pm_card_visa", "ctoken_1"):
        assert (await api.confirm(made.id, f"pay_{token}", token)).id
    assert (await api.intent(made.id)).id
    assert (await api.cancel(made.id)).id


async def test_requests_for_refunds_are_valid(api: StripeApi) -> None:
    refund_id, _ = await api.create_refund("ref_1", "pi_1", TEN)
    assert refund_id.startswith("re_")
    assert (await api.refund(refund_id))[0]
    assert await api.find_refund("ref_unknown", "pi_1") is None


async def test_an_invalid_request_is_refused(api: StripeApi) -> None:
    with pytest.raises((ChargeDeclined, StripeRefused)):
        await api.create_intent("pay_2", Money(10**20, "EUR"))
