"""kill -9 at every failpoint, with orders of every kind in flight: nothing is lost, nothing happens twice.

The long form (`make test-crash`) tries every point in every process that meets it; `make test` a few, drawn by a seed
that it prints (CRASH_SEED draws the same again). CRASH_ONLY=orders.place tries what has this in its name.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from functions.runtime.store.port import NotAvailable
from knative.local import dynamodb, postgres
from knative.local.demo.shop import Person, Refused, Shop
from tests.crash.invariants import MAIL_SECONDS, Violation, broken, drained, unsent
from tests.crash.mail import MailServer, mail_server
from tests.crash.platform import SETTLE_SECONDS, Mortal, mortal
from tests.crash.points import DYNAMODB, GATEWAY, POSTGRES, SQLITE, Shot, points, rounds, shots
from tests.crash.story import begin

SEED = int(os.environ.get("CRASH_SEED") or random.randrange(1_000_000))
ONLY = os.environ.get("CRASH_ONLY", "")
FEW = 4
HIT_SECONDS = 90.0
# Reached many times a second: where they strike is drawn, so that it is not always at the start.
_BUSY = (
    "sqlite.",
    "postgres.",
    "dynamodb.",
    "broker.accept",
    "broker.acknowledge",
    "broker.deliver",
    "gateway.",
)


class Trial:
    """Rounds on one platform; what goes wrong is gathered, so that one round does not hide the next."""

    def __init__(self, platform: Mortal, mail: MailServer, capture: pytest.CaptureFixture[str]) -> None:
        self.deaths: Counter[str] = Counter()
        self.tried: set[str] = set()
        self.wrong: list[str] = []
        self._platform = platform
        self._mail = mail
        self._people: list[Person] = []
        self._capture = capture
        self._random = random.Random(SEED)

    async def round(self, together: Sequence[Shot]) -> None:
        """Kill each part at its point while people shop, then look whether everything is as it must be."""
        started, names = time.monotonic(), ", ".join(f"{shot.part} at {shot.point}" for shot in together)
        async with Shop(self._platform.url(GATEWAY)) as shop:
            try:
                await self._kill(shop, together)
            except (Violation, Refused, TimeoutError, AssertionError) as error:
                self.wrong.append(f"{names}: {type(error).__name__} {error}")
                self.say(self.wrong[-1])
        self.say(f"{time.monotonic() - started:5.1f} s  {names}")

    async def _kill(self, shop: Shop, together: Sequence[Shot]) -> None:
        today = await begin(shop, self._platform, self._mail)
        armed = [self._platform.arm(shot, self._nth(shot)) for shot in together]
        deaths = [asyncio.create_task(each.buried(HIT_SECONDS)) for each in armed]
        rotate = any(shot.point.startswith("users.keys") for shot in together)
        while True:
            await today.wave(rotate_keys=rotate)
            if all(death.done() for death in deaths):
                break
            await self._platform.sweep()
        await self._platform.ready()
        for shot, death in zip(together, deaths, strict=True):
            if not death.result():
                raise Violation(f"{shot.part} never came to {shot.point}: what leads there is missing in story.py")
            self.deaths[shot.part] += 1
            self.tried.add(shot.point)
        await drained(self._platform, lambda: broken(today))
        self._people += today.customers

    async def mail_went_out(self) -> None:
        """What could not be sent is sent minutes later, by a sweep."""
        async with Shop(self._platform.url(GATEWAY)) as shop:
            deaths = self.deaths["notifications"]
            complaints = partial(unsent, shop, self._people, self._mail, deaths)
            await drained(self._platform, complaints, MAIL_SECONDS)

    def say(self, line: str) -> None:
        """Show a line at once: this takes minutes."""
        with self._capture.disabled():
            sys.stdout.write(f"  {line}\n")
            sys.stdout.flush()

    def _nth(self, shot: Shot) -> int:
        return self._random.randint(2, 12) if shot.point.startswith(_BUSY) else 1


@asynccontextmanager
async def trial(folder: Path, capture: pytest.CaptureFixture[str], **environ: str) -> AsyncIterator[Trial]:
    """A fresh platform to try on. At its end: no violation, and how many points were tried."""
    async with mail_server() as mail:
        settings = {"SMTP_URL": mail.url, "PAYMENT_SETTLE_AFTER": str(SETTLE_SECONDS), **environ}
        # All mails are asked for, and all people register, from one address.
        settings |= dict.fromkeys(
            ("LOGIN_FAILURES_PER_ADDRESS", "REGISTRATIONS_PER_ADDRESS", "REGISTRATIONS_IN_ALL"), "100000"
        )
        async with mortal(folder, settings) as platform:
            trying = Trial(platform, mail, capture)
            yield trying
            deaths = sum(trying.deaths.values())
            trying.say(f"{len(trying.tried)} failpoints tried in {deaths} deaths, seed {SEED}")
            assert not trying.wrong, "\n".join([*trying.wrong, platform.output()])


def chosen(store: str = SQLITE) -> list[Shot]:
    """The shots on this kind of store, and on SQLite also those of all other parts, in an order that the seed draws."""
    others = tuple({SQLITE, POSTGRES, DYNAMODB} - {store})
    found = [shot for shot in shots(points()) if ONLY in shot.point and not shot.point.startswith(others)]
    if store != SQLITE:
        found = [shot for shot in found if shot.point.startswith(store)]
    random.Random(SEED).shuffle(found)
    # Takes up what was left a minute before: at the end there is some.
    return sorted(found, key=lambda shot: shot.point.startswith("notifications.retry"))


@pytest.mark.slow
async def test_no_point_to_die_at_loses_or_repeats_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with trial(tmp_path / "data", capsys) as trying:
        for together in rounds(chosen()):
            await trying.round(together)
        await trying.mail_went_out()


@pytest.mark.slow
async def test_nor_does_any_on_dynamodb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        database = dynamodb.running(tmp_path / "dynamodb", tmp_path / "dynamodb.log")
        variables = database.__enter__()
    except NotAvailable as missing:
        pytest.skip(str(missing))
    try:
        async with trial(tmp_path / "data", capsys, **variables) as trying:
            for together in rounds(chosen(DYNAMODB)):
                await trying.round(together)
    finally:
        database.__exit__(None, None, None)


@pytest.mark.slow
async def test_nor_does_any_on_postgresql(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = postgres.running(tmp_path / "postgres", tmp_path / "postgres.log", {}, lambda _: None)
    try:
        variables = await asyncio.to_thread(database.__enter__)
    except NotAvailable as missing:
        pytest.skip(str(missing))
    try:
        async with trial(tmp_path / "data", capsys, **variables) as trying:
            for together in rounds(chosen(POSTGRES)):
                await trying.round(together)
    finally:
        await asyncio.to_thread(database.__exit__, None, None, None)


async def test_a_few_points_drawn_by_a_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = [shot for shot in chosen() if not shot.point.startswith("notifications.retry")][:FEW]
    async with trial(tmp_path / "data", capsys) as trying:
        for together in rounds(drawn, at_once=2):
            await trying.round(together)
