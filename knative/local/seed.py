"""Load the demo catalogue into an empty store, through the public API."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from knative.local import web
from observability.headers import retry_after

CATALOGUE: Final = Path(__file__).with_name("catalogue.yaml")
_RETRY_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 5.0


class SeedFailed(RuntimeError):
    """The API refused a request; the message says which and why."""


def seed(base_url: str, email: str, password: str, catalogue: Path = CATALOGUE) -> int:
    """Create the catalogue's products and set their stock; return the number of products.

    A repeated call completes an interrupted one. If the store has other products, does nothing and returns 0. Raises
    SeedFailed, and OSError if the gateway does not respond.
    """
    api = _Api(base_url)
    entries = yaml.safe_load(catalogue.read_text(encoding="utf-8"))
    there = {product["sku"]: product for product in api.call("GET", "/v1/products?limit=100")["items"]}
    if there.keys() - {entry["sku"] for entry in entries["products"]}:
        return 0
    api.token = api.call("POST", "/v1/sessions", {"email": email, "password": password})["access_token"]
    for entry in entries["products"]:
        product = there.get(entry["sku"]) or api.call("POST", "/v1/products", _product(entry, entries["currency"]))
        stock = f"/v1/products/{product['id']}/stock"
        if api.call("GET", stock)["on_hand"] == 0:
            api.call("PUT", stock, {"on_hand": entry["on_hand"]})
    return len(entries["products"])


def _product(entry: Mapping[str, Any], currency: str) -> dict[str, Any]:
    return {
        "sku": entry["sku"],
        "name": entry["name"],
        "description": entry["description"],
        "category": entry["category"],
        "price": {"amount": entry["price"], "currency": currency},
        "image_urls": [],
        "active": True,
    }


class _Api:
    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self.token = ""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        content = json.dumps(body).encode() if body is not None else b""
        deadline = time.monotonic() + _RETRY_SECONDS
        while True:
            status, answer_headers, answer = web.request(method, self._base_url + path, content, headers)
            if status not in (429, 503) or time.monotonic() > deadline:
                break
            # The gateway's limits apply here, too; its Retry-After header says when to retry.
            named = retry_after(answer_headers.get("retry-after", ""), time.time())
            time.sleep(min(_PAUSE_SECONDS if named is None else named, _LONGEST_PAUSE_SECONDS))
        if status >= 300:
            problem = web.parse(answer)
            raise SeedFailed(f"{method} {path}: {status} {problem.get('reason', '')} {problem.get('detail', '')}")
        return web.parse(answer)
