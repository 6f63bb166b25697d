"""The demo catalogue and how it gets into the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from threading import Thread
from typing import Any

import pytest
import yaml

from knative.local import seed


class Api(BaseHTTPRequestHandler):
    """The gateway, as far as seeding goes; every third request is asked to come back later."""

    state: dict[str, Any]

    def do_GET(self) -> None:
        if self.path.endswith("/stock"):
            self._answer(200, {"on_hand": self.state["stock"].get(self.path, 0)})
        else:
            self._answer(200, {"items": self.state["products"], "next_cursor": None})

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/v1/sessions":
            known = body == {"email": "admin@shop.local", "password": "right"}
            self._answer(*((200, {"access_token": "t"}) if known else (401, {"reason": "INVALID_CREDENTIALS"})))
        elif self._is_limited():
            self._answer(429, {}, {"retry-after": next(self.state["waits"])})
        else:
            assert self.headers["authorization"] == "Bearer t"
            made = {**body, "id": f"prd_{len(self.state['products']) + 1}"}
            self.state["products"].append(made)
            self._answer(201, made)

    def do_PUT(self) -> None:
        self.state["stock"][self.path] = self._body()["on_hand"]
        self._answer(200, {})

    def _is_limited(self) -> bool:
        self.state["requests"] += 1
        return bool(self.state["requests"] % 3 == 0)

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        return body

    def _answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass


@contextmanager
def gateway(**state: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    waits = cycle(["0", "Fri, 31 Dec 1999 23:59:59 GMT"])  # a proxy on the way may name a date
    full = {"products": [], "stock": {}, "requests": 0, "waits": waits, **state}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Api,), {"state": full}))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", full
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_catalogue_is_loaded_into_an_empty_store() -> None:
    with gateway() as (url, state):
        assert seed.seed(url, "admin@shop.local", "right") == 20
    assert len(state["products"]) == len(state["stock"]) == 20
    assert state["stock"]["/v1/products/prd_1/stock"] > 0
    assert state["products"][0]["price"] == {"amount": 1190, "currency": "EUR"}


def test_a_store_that_has_products_is_left_alone() -> None:
    own = {"id": "prd_1", "sku": "OUR-OWN"}
    with gateway(products=[own]) as (url, state):
        assert seed.seed(url, "admin@shop.local", "right") == 0
    assert state["products"] == [own]


def test_what_an_interrupted_start_began_is_completed() -> None:
    stocked, bare = {"id": "prd_a", "sku": "CFE-ETH-250"}, {"id": "prd_b", "sku": "CFE-COL-250"}
    with gateway(products=[stocked, bare], stock={"/v1/products/prd_a/stock": 7}) as (url, state):
        seed.seed(url, "admin@shop.local", "right")
    assert len(state["products"]) == len(state["stock"]) == 20
    assert state["stock"]["/v1/products/prd_a/stock"] == 7
    assert state["stock"]["/v1/products/prd_b/stock"] == 150


def test_a_refusal_is_told_with_its_reason() -> None:
    with (
        gateway() as (url, _),
        pytest.raises(seed.SeedFailed, match="POST /v1/sessions: 401 INVALID_CREDENTIALS"),
    ):
        seed.seed(url, "admin@shop.local", "wrong")


def test_the_catalogue_holds_some_twenty_goods_over_several_categories() -> None:
    entries = yaml.safe_load(seed.CATALOGUE.read_text(encoding="utf-8"))["products"]
    assert len(entries) == len({entry["sku"] for entry in entries}) == 20
    assert len({entry["category"] for entry in entries}) in (4, 5)
    assert all(isinstance(e["price"], int) and e["price"] > 0 and e["on_hand"] > 0 for e in entries)
