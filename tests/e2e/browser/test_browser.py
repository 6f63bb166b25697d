"""Pages in a real browser, of this origin and of another one: preflights, EventSource, and the documentation."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.async_api import Page, async_playwright, expect

from knative.local.demo.shop import Person, Shop
from tests.e2e.observed.stories import place, stocked
from tests.e2e.platform import LocalPlatform

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
SECONDS = 60_000  # Playwright counts in milliseconds; busy machines are slow to draw
FOLLOW = """([url]) => new Promise((resolve, reject) => {
  const heard = [];
  const source = new EventSource(url);
  source.onmessage = event => heard.push(["message", event.data]);
  source.addEventListener("order", event => {
    const order = JSON.parse(event.data);
    heard.push([event.type, event.lastEventId, order.status]);
    if (order.status === "CANCELLED") { source.close(); resolve(heard); }
  });
  source.onerror = () => { source.close(); reject(new Error("refused: " + JSON.stringify(heard))); };
})"""
CALL = """async ([url, method, headers]) => {
  const answer = await fetch(url, {method, headers});
  return [answer.status, answer.headers.get("x-correlation-id"), answer.headers.get("etag")];
}"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome on the PATH")


class ShopPage(BaseHTTPRequestHandler):
    """An empty page, at any path."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Shop</title>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), ShopPage) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, origin: str) -> Iterator[LocalPlatform]:
    folder = tmp_path_factory.mktemp("browser") / "data"
    platform = LocalPlatform(folder, "--no-seed", "--no-console", CORS_ORIGINS=origin)
    platform.start()
    yield platform
    assert platform.stop() == 0, platform.output()


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        # No sandbox: where tests run as root, in a container, Chromium has none.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--no-sandbox"])
        page = await browser.new_page()
        page.set_default_timeout(SECONDS)
        yield page
        await browser.close()


async def ordered(shop: Shop, platform: LocalPlatform) -> tuple[Person, str]:
    product = await stocked(shop, platform)
    customer = await shop.register()
    placed = await place(shop, customer, product, "tok_ok")
    await shop.settled(customer, placed["id"])
    return customer, str(placed["id"])


@pytest.mark.parametrize("of", ["the gateway", "another"])
async def test_an_event_source_follows_an_order_by_a_ticket(
    shared: LocalPlatform, page: Page, origin: str, of: str
) -> None:
    await page.goto(f"{shared.base_url}/docs" if of == "the gateway" else f"{origin}/")
    async with Shop(shared.base_url) as shop:
        customer, order = await ordered(shop, shared)
        issued = await shop.call("POST", f"/v1/orders/{order}/stream-tickets", who=customer)
        url = shared.base_url + issued["url"]
        async with page.expect_response(lambda answer: "/stream?" in answer.url):
            await page.evaluate(f"([url]) => {{ window.heard = ({FOLLOW})([url]); }}", [url])
        await shop.call("POST", f"/v1/orders/{order}/cancel", who=customer, json={"reason": "changed my mind"})
        heard = await page.evaluate("window.heard")
        assert [each[0] for each in heard] == ["order"] * len(heard), "no empty events"
        assert heard[0][2] == "CONFIRMED"
        assert heard[-1][2] == "CANCELLED"
        with pytest.raises(Exception, match="refused"):
            await page.evaluate(FOLLOW, [url])  # used up


async def test_a_page_of_another_origin_sends_and_reads_what_it_needs(
    shared: LocalPlatform, page: Page, origin: str
) -> None:
    await page.goto(f"{origin}/")
    async with Shop(shared.base_url) as shop:
        customer, order = await ordered(shop, shared)
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    headers = {
        "authorization": f"Bearer {customer.tokens['access_token']}",
        "traceparent": trace,
        "tracestate": "a=1",
        "baggage": "page=orders",
        "x-correlation-id": "from-a-page-1",
        "if-none-match": '"0"',
    }
    url = f"{shared.base_url}/v1/orders/{order}"
    status, correlation, tag = await page.evaluate(CALL, [url, "GET", headers])
    assert (status, correlation) == (200, "from-a-page-1")
    assert tag
    resumed = {**headers, "last-event-id": json.loads(tag)}
    del resumed["if-none-match"]
    status, *_ = await page.evaluate(
        "async ([url, method, headers]) => {"
        "const stop = new AbortController();"
        "const answer = await fetch(url, {method, headers, signal: stop.signal});"
        "stop.abort(); return [answer.status]; }",
        [f"{url}/stream", "GET", resumed],
    )
    assert status == 200
    with pytest.raises(Exception, match="Failed to fetch"):
        await page.evaluate(CALL, [url, "GET", {**headers, "x-user-id": "usr_1"}])


async def test_the_documentation_is_shown_and_may_call_the_api(shared: LocalPlatform, page: Page) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    answer = await page.goto(f"{shared.base_url}/docs")
    assert answer is not None
    operation = page.locator("#operations-keys-readKeys")
    await expect(operation).to_contain_text("/.well-known/jwks.json", timeout=SECONDS)
    status, *_ = await page.evaluate(CALL, ["/.well-known/jwks.json", "GET", {}])
    assert status == 200
    assert complaints == []
