"""Fixtures of a separate platform, which sends traces to a receiver and e-mails to a mail server in this process."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink

from knative.local import ports
from tests.e2e.observed.jaeger import Jaeger
from tests.e2e.observed.receiver import Receiver
from tests.e2e.observed.stories import Story, order, then
from tests.e2e.platform import LocalPlatform, Platform


@pytest.fixture(scope="package")
def receiver() -> Iterator[Receiver]:
    url = os.environ.get("JAEGER_URL")
    receiver = Jaeger(url) if url else Receiver()
    receiver.start()
    yield receiver
    receiver.stop()


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Platform]:
    """Run the platform that replaces the other tests' platform here."""
    mail = Controller(Sink(), hostname="127.0.0.1", port=ports.free([]).http["gateway"])
    mail.start()
    local = LocalPlatform(
        tmp_path_factory.mktemp("observed") / "data",
        SMTP_URL=f"smtp://127.0.0.1:{mail.port}",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        OTEL_BSP_SCHEDULE_DELAY="200",
    )
    local.start()
    yield local
    assert local.stop() == 0, local.output()
    mail.stop()


@pytest.fixture(scope="package")
def confirmed(platform: Platform) -> Story:
    """Return an order that was paid for, placed within a trace of the customer."""
    return asyncio.run(order(platform, "tok_ok"))


@pytest.fixture(scope="package")
def declined(platform: Platform) -> Story:
    """Return an order whose payment was declined."""
    return asyncio.run(order(platform, "tok_declined"))


@pytest.fixture(scope="package")
def retried(platform: Platform) -> Story:
    """Return an order for which the payment provider failed twice before it succeeded."""
    return asyncio.run(order(platform, "tok_flaky"))


@pytest.fixture(scope="package")
def cancelled(platform: Platform) -> Story:
    """Cancel a paid order within a trace of its own."""
    bought = asyncio.run(order(platform, "tok_ok"))
    path = f"/v1/orders/{bought.order['id']}/cancel"
    return asyncio.run(then(platform, bought, path, {"reason": "Changed my mind."}))


@pytest.fixture(scope="package")
def refunded(platform: Platform) -> Story:
    """Refund a part of an order within a trace of its own."""
    bought = asyncio.run(order(platform, "tok_ok"))
    return asyncio.run(
        then(
            platform,
            bought,
            "/v1/payments/{payment}/refunds",
            {"amount": {"amount": 100, "currency": "EUR"}},
            admin=True,
        )
    )


@pytest.fixture(scope="package")
def shipped(platform: Platform) -> Story:
    """Ship an order within a trace of its own."""
    bought = asyncio.run(order(platform, "tok_ok"))
    return asyncio.run(then(platform, bought, f"/v1/orders/{bought.order['id']}/ship", {}, admin=True))
