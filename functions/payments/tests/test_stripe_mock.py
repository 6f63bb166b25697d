"""The shapes on the wire, against Stripe's own mock: it checks every parameter by Stripe's OpenAPI document.

It keeps no state, and answers any request with a canned object; what follows from states is in test_stripe.py.
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
from functions.payments.stripe_api import Declined, Refused, StripeApi

VERSION = "v0.203.0"
TEN = Money(1000, "EUR")


def build() -> Path:
    """stripe-mock, built by Go once into the user's cache."""
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "shop-platform"
        / f"stripe-mock-{VERSION}"
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
    """Where stripe-mock listens."""
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


async def test_intents_are_made_confirmed_read_and_cancelled_as_stripe_wants_it(api: StripeApi) -> None:
    made = await api.create_intent("pay_1", TEN)
    for token in ("pm_card_visa", "ctoken_1"):
        assert (await api.confirm(made.id, f"pay_{token}", token)).id
    assert (await api.intent(made.id)).id
    assert (await api.cancel(made.id)).id


async def test_refunds_are_made_read_and_found_as_stripe_wants_it(api: StripeApi) -> None:
    refund_id, _ = await api.create_refund("ref_1", "pi_1", TEN)
    assert refund_id.startswith("re_")
    assert (await api.refund(refund_id))[0]
    assert await api.find_refund("ref_unknown", "pi_1") is None


async def test_what_stripe_does_not_understand_is_refused(api: StripeApi) -> None:
    with pytest.raises((Declined, Refused)):
        await api.create_intent("pay_2", Money(10**20, "EUR"))
