"""Clients that offer another protocol with a POST: no server of ours loses the body, or acts on an empty one."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from events.catalog import OrderPlaced
from events.service_tokens import DEAD_LETTERS
from functions.runtime.clock import SystemClock
from functions.runtime.ids import uuid7
from functions.runtime.tokens import ServiceTokens
from tests.e2e.platform import LocalPlatform
from tests.signing import local_key

OFFER = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
DOMAINS = ("users", "products", "orders", "payments", "notifications")
NOT_THIS = b'{"order_id": 7}'  # no data of any event: 422 says that it was read
JAVA = """
import java.net.URI;
import java.net.http.*;

class Post {
  public static void main(String[] given) throws Exception {
    var request = HttpRequest.newBuilder(URI.create(given[0])).header("content-type", "application/json")
        .POST(HttpRequest.BodyPublishers.ofString(given[1])).build();
    var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
    System.out.println(answer.statusCode());
    System.out.println(answer.body());
  }
}
"""


async def post(url: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """Status and body of a POST with the offer, by a socket."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST {parts.path or '/'} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-length: {len(body)}\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(head.encode() + OFFER + lines.encode() + b"\r\n" + body)
    async with asyncio.timeout(20):
        answered = await reader.readuntil(b"\r\n\r\n")
        lengths = [
            int(line.partition(b":")[2])
            for line in answered.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        content = await reader.readexactly(lengths[0]) if lengths else b""
    writer.close()
    return int(answered.split(b" ")[1]), content


def event() -> dict[str, str]:
    return {
        "ce-specversion": "1.0",
        "ce-id": uuid7(),
        "ce-type": OrderPlaced.TYPE,
        "ce-source": OrderPlaced.SOURCE,
        "content-type": "application/json",
    }


def account() -> str:
    return json.dumps({"email": f"h2c.{uuid4().hex}@example.com", "password": "correct horse battery", "name": "Ada"})


async def test_the_gateway_keeps_the_body(local: LocalPlatform) -> None:
    status, content = await post(f"{local.base_url}/v1/users", {"content-type": "application/json"}, account().encode())
    assert status == 201, content


@pytest.mark.parametrize("domain", DOMAINS)
async def test_an_event_function_keeps_the_data(local: LocalPlatform, domain: str) -> None:
    url = str(local.state()["parts"][domain]["url"])
    structured = {
        "specversion": "1.0",
        "id": uuid7(),
        "type": "shop.unheard.of.v1",
        "source": "/nobody",
        "data": {},
    }
    status, content = await post(url, {"content-type": "application/cloudevents+json"}, json.dumps(structured).encode())
    assert status == 400
    assert json.loads(content)["reason"] == "EVENT_TYPE_UNKNOWN"


async def test_the_broker_and_the_dead_letters_keep_the_data(local: LocalPlatform) -> None:
    """What no subscriber can take goes through both: broker, function, dead-letter sink."""
    broker = str(local.state()["parts"]["broker"]["url"])
    headers = event()
    status, _ = await post(f"{broker}/shop/default", {**headers, "ce-subject": "h2c"}, NOT_THIS)
    assert status == 202
    status, _ = await post(f"{broker}/dead-letters/", {**headers, "ce-id": "h2c-letter"}, NOT_THIS)
    assert status == 204
    kept = {headers["ce-id"], "h2c-letter"}
    async with asyncio.timeout(60):
        while kept:
            for letter in await letters(broker, local):
                if letter["event_id"] in kept:
                    assert letter["event"]["data"] == json.loads(NOT_THIS)
                    kept.remove(letter["event_id"])
            await asyncio.sleep(0.1)


async def letters(broker: str, local: LocalPlatform) -> list[dict[str, Any]]:
    import aiohttp

    tokens = ServiceTokens(local_key(local.folder, "gateway"), "https://shop.local", SystemClock())
    shown = {"authorization": f"Bearer {tokens.token(DEAD_LETTERS)}"}
    async with aiohttp.ClientSession(f"{broker}/dead-letters/", trust_env=False, headers=shown) as session:
        async with session.get("entries", params={"limit": "100"}) as answer:
            brief = (await answer.json())["items"]
        whole = []
        for letter in brief:
            async with session.get(f"entries/{letter['id']}") as answer:
                whole.append(await answer.json())
        return whole


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_asking_for_http_2_registers(local: LocalPlatform) -> None:
    command = ["curl", "--noproxy", "*", "-sS", "--http2", "-w", "\n%{http_code}", "--json", account()]
    answered = subprocess.run(
        [*command, f"{local.base_url}/v1/users"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert answered.endswith("\n201"), answered


@pytest.mark.skipif(shutil.which("javac") is None, reason="needs a JDK")
def test_javas_http_client_registers(local: LocalPlatform, tmp_path: Path) -> None:
    program = tmp_path / "Post.java"
    program.write_text(JAVA)
    command = ["java", str(program), f"{local.base_url}/v1/users", account()]
    answered = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert answered.startswith("201\n"), answered
