"""Nothing that people keep to themselves is in a span, a log line or an event."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

from knative.local.demo.shop import ADDRESS, Shop
from tests.e2e.observed.receiver import Receiver
from tests.e2e.observed.stories import Story
from tests.e2e.platform import LocalPlatform

PATTERNS = {
    "a token": re.compile(rb"eyJ[\w-]{8,}\.eyJ"),
    "a payment token": re.compile(rb"tok_(?:ok|declined|flaky|slow|timeout|insufficient_funds)\b"),
    "an e-mail address": re.compile(rb"[\w.]+@(?:example\.com|shop\.test)"),
    "a password's hash": re.compile(rb"\$argon2"),
    "a private key": re.compile(rb"PRIVATE KEY"),
}


def everything(platform: LocalPlatform, receiver: Receiver) -> Iterator[tuple[str, bytes]]:
    """All spans, all log files, and the broker's database, which has held every event."""
    for span in list(receiver.spans.values()):
        yield f"span {span.signature}", span.text.encode()
    for folder in ("logs", "broker"):
        for file in Path(platform.folder / folder).rglob("*"):
            if file.is_file():
                yield str(file.name), file.read_bytes()


async def test_no_secret_of_any_order_is_in_spans_logs_or_events(
    platform: LocalPlatform, receiver: Receiver, confirmed: Story, declined: Story
) -> None:
    async with Shop(platform.base_url) as shop:
        wrong = {"email": confirmed.customer.email, "password": "not-the-password-9f2"}
        await shop.raw("POST", "/v1/sessions", json=wrong)
        await shop.raw("GET", f"/v1/no/{confirmed.customer.email}?email={confirmed.customer.email}")
    await asyncio.to_thread(receiver.await_spans, lambda spans: any("send" in s.name for s in spans), declined.trace_id)
    used = [
        value
        for story in (confirmed, declined)
        for value in (
            story.customer.password,
            *map(story.customer.tokens.get, ("access_token", "refresh_token")),
        )
    ]
    secrets = {
        **PATTERNS,
        **{f"secret {n}": re.compile(re.escape(str(value).encode())) for n, value in enumerate(used)},
        "a password that was wrong": re.compile(b"not-the-password-9f2"),
        "the administrator's password": re.compile(platform.admin_password.encode()),
        **{part: re.compile(re.escape(ADDRESS[part].encode())) for part in ("name", "line1", "postal_code")},
    }
    found = list(everything(platform, receiver))
    assert len(found) > 50
    leaks = {(where, what) for where, text in found for what, secret in secrets.items() if secret.search(text)}
    assert leaks == set()
