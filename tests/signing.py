"""Events as a service of a running platform would sign them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from events.service_keys import PrivateKey
from events.signatures import EXTENSION, Signer


def local_key(data: Path, service: str) -> PrivateKey:
    """The key of a service of the platform that runs on this folder."""
    return PrivateKey.from_pem(service, (data / f"secrets/service-key-{service}/service.pem").read_text())


def signed(headers: Mapping[str, str], data: bytes, key: PrivateKey) -> dict[str, str]:
    """The headers of an event in binary mode, with a time and its signature."""
    headers = {"ce-time": "2030-01-01T00:00:00Z", **headers}
    attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    return {**headers, f"ce-{EXTENSION}": Signer(lambda: key).sign(attributes, data)}
