"""The console of `make up` in a real browser, on a platform that sends it its spans."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Page, async_playwright, expect

from knative.local.demo.shop import Shop
from tests.e2e.observed.stories import place, stocked
from tests.e2e.platform import LocalPlatform
from tests.e2e.test_dead_letters import publish_poison

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
SECONDS = 20_000  # Playwright counts in milliseconds

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome on the PATH")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    platform = LocalPlatform(tmp_path_factory.mktemp("console") / "data", "--no-seed")
    platform.start()
    yield platform
    assert platform.stop() == 0, platform.output()


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        # No sandbox: where tests run as root, in a container, Chromium has none.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(SECONDS)
        yield page
        await browser.close()


@pytest.fixture
async def order(watched: LocalPlatform) -> str:
    async with Shop(watched.base_url) as shop:
        product = await stocked(shop, watched)
        customer = await shop.register()
        placed = await place(shop, customer, product, "tok_ok")
        await shop.settled(customer, placed["id"])
        return str(placed["id"])


async def test_an_order_shows_its_timeline_and_its_trace_as_a_waterfall(
    watched: LocalPlatform, page: Page, order: str
) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    await page.goto(f"{watched.base_url}/console#orders/{order}")
    await expect(page.locator("#order-note")).to_contain_text("CONFIRMED", timeout=SECONDS)
    steps = page.locator("#timeline li")
    told = ["order.placed", "stock.reserved", "payment.captured", "order.confirmed"]
    for number, step in enumerate(told):
        await expect(steps.nth(number)).to_contain_text(step, timeout=SECONDS)
    lines = page.locator("#waterfall .span")
    for name in (
        "gateway POST /v1/orders",
        "products process order.placed",
        "notifications process order.confirmed",
    ):
        await expect(lines.filter(has_text=name)).to_have_count(1, timeout=SECONDS)
    assert await lines.locator("svg rect").count() == await lines.count()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 1280, "it fits its window"
    assert complaints == []


async def test_the_overview_shows_every_part_and_who_tells_whom(watched: LocalPlatform, page: Page, order: str) -> None:
    await page.goto(f"{watched.base_url}/console")
    await expect(page.locator("#state")).to_have_text("8 parts ready", timeout=SECONDS)
    await expect(page.locator("#flow .edge.s-payments").first).to_be_visible(timeout=SECONDS)
    await expect(page.locator("#flow .node")).to_have_count(5)
    gateway = page.locator("#parts tbody tr", has_text="gateway")
    assert int(await gateway.locator("td").nth(1).inner_text()) >= 3


async def test_a_dead_letter_is_shown_and_replayed_by_a_click(watched: LocalPlatform, page: Page) -> None:
    await publish_poison(watched)
    await page.goto(f"{watched.base_url}/console#dead-letters")
    letter = page.locator("#letters tbody tr")
    await expect(letter).to_contain_text("EVENT_DATA_INVALID", timeout=SECONDS)
    await expect(letter.locator("td").nth(4)).to_have_text("1")
    await letter.get_by_role("button", name="Replay").click()
    await expect(letter.locator("td").nth(4)).to_have_text("2", timeout=SECONDS)


async def test_a_part_that_died_shows_its_restart(watched: LocalPlatform, page: Page) -> None:
    await page.goto(f"{watched.base_url}/console")
    killed = watched.kill("notifications")
    restarts = page.locator("#parts tbody tr", has_text="notifications").locator("td").nth(6)
    await expect(restarts).to_have_text("1", timeout=SECONDS)
    watched.await_return("notifications", killed)
