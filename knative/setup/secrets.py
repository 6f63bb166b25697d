"""Create the secrets that must not be in a repository: a key pair for each service, and passwords.

The private key of each service is in its own Secret, `service-key-<name>`. The public keys of all services are in the
ConfigMap `service-keys`, as a JWKS. The overlay creates these objects empty, so that this module only needs the
permission to read and patch them (the permission to create objects cannot be limited to names).
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from events.service_keys import PrivateKey, ServiceKeys

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SECONDS: Final = 10.0


PUBLIC_KEYS: Final = "service-keys"
"""The ConfigMap with the public keys, in its entry `jwks.json`."""
_JWKS: Final = "jwks.json"
_KEY: Final = "service.pem"
_NEXT: Final = "next.pem"


class Secrets(Protocol):
    """Access to the Secrets of one namespace and its ConfigMap `service-keys`."""

    def entries(self, name: str) -> dict[str, bytes]:
        """Return the entries of an object. Raises OSError."""

    def add(self, name: str, entries: Mapping[str, bytes]) -> None:
        """Add entries to an object, or replace them; other entries stay. Raises OSError."""


class Cluster:
    """Secrets in a cluster, accessed over the Kubernetes API at `url` (https://host:port)."""

    def __init__(self, url: str, namespace: str, token: str, tls: ssl.SSLContext | None) -> None:
        self._base = f"{url}/api/v1/namespaces/{namespace}"
        self._token = token
        # The API server is inside the cluster, so the environment's proxies are not used.
        direct, https = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls)
        self._opener = urllib.request.build_opener(direct, https)

    @classmethod
    def from_inside(cls, account: Path = _ACCOUNT) -> Cluster:
        """Return the access of the pod's own service account."""
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
        host = f"[{host}]" if ":" in host else host
        namespace, token = (account / "namespace").read_text(), (account / "token").read_text()
        return cls(f"https://{host}:{port}", namespace, token, tls)

    def entries(self, name: str) -> dict[str, bytes]:
        found = self._call("GET", name).get("data") or {}
        decode = str.encode if name == PUBLIC_KEYS else b64decode
        return {key: decode(value) for key, value in found.items()}

    def add(self, name: str, entries: Mapping[str, bytes]) -> None:
        encode = bytes.decode if name == PUBLIC_KEYS else lambda value: b64encode(value).decode()
        data = {key: encode(value) for key, value in entries.items()}
        self._call("PATCH", name, json.dumps({"data": data}).encode())

    def _call(self, method: str, name: str, body: bytes | None = None) -> dict[str, Any]:
        kind = "configmaps" if name == PUBLIC_KEYS else "secrets"
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/merge-patch+json"}
        request = urllib.request.Request(f"{self._base}/{kind}/{name}", body, headers, method=method)  # noqa: S310 - ours
        with self._opener.open(request, timeout=_SECONDS) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


class Folder:
    """Secrets as files in a folder, <secret>/<entry>, which other users cannot read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def entries(self, name: str) -> dict[str, bytes]:
        there = self._folder / name
        if not there.is_dir():
            return {}
        return {path.name: path.read_bytes() for path in there.iterdir() if not path.name.startswith(".")}

    def add(self, name: str, entries: Mapping[str, bytes]) -> None:
        there = self._folder / name
        there.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry, value in entries.items():
            draft = there / f".{entry}"
            draft.touch(mode=0o600)
            draft.write_bytes(value)
            draft.replace(there / entry)


def fill(cluster: Secrets, admin_email: str, services: Sequence[str]) -> list[str]:
    """Create missing secrets; return their names.

    The public keys are written last: pods wait for them, and the other secrets exist by then.
    """
    made = []
    if "password" not in cluster.entries("admin"):
        password = secrets.token_urlsafe(18)
        cluster.add("admin", {"email": admin_email.encode(), "password": password.encode()})
        made.append("admin")
    return made + fill_keys(cluster, services)


def fill_passwords(cluster: Secrets, names: Sequence[str]) -> list[str]:
    """Create the missing passwords of the store, each in the Secret `store-<name>`. Returns the created Secrets.

    `names` are those of the domains, and `admin`.
    """
    made = [f"store-{name}" for name in names if "password" not in cluster.entries(f"store-{name}")]
    for name in made:
        cluster.add(name, {"password": secrets.token_urlsafe(18).encode()})
    return made


def fill_id(cluster: Secrets, name: str) -> list[str]:
    """Add a random entry `id`, a name for folders, to the Secret `name` if it has none. Returns the changed Secrets."""
    if "id" in cluster.entries(name):
        return []
    cluster.add(name, {"id": secrets.token_hex(8).encode()})
    return [name]


def fill_keys(cluster: Secrets, services: Sequence[str]) -> list[str]:
    """Create missing key pairs; return the names of the changed objects. Published public keys stay published."""
    made = []
    for service in services:
        if _KEY not in cluster.entries(_secret(service)):
            cluster.add(_secret(service), {_KEY: new_key()})
            made.append(_secret(service))
    if services and _publish(cluster, services, _published(cluster)):
        made.append(PUBLIC_KEYS)
    return made


def announce(cluster: Secrets, service: str) -> None:
    """Begin a rotation: create the service's next key, and publish its public key in addition to the current one."""
    entries = cluster.entries(_secret(service))
    # There is no next key, or it is the current key, left from an earlier rotation.
    if entries.get(_NEXT) in (None, entries.get(_KEY)):
        cluster.add(_secret(service), {_NEXT: new_key()})
    _publish(cluster, [service], _published(cluster), _NEXT)


def switch(cluster: Secrets, service: str) -> None:
    """Continue a rotation: make the next key the current key. Every process must have loaded its public key before."""
    entries = cluster.entries(_secret(service))
    if _NEXT not in entries:
        raise ValueError(f"{service} has no next key: announce it first")
    cluster.add(_secret(service), {_KEY: entries[_NEXT]})


def retire(cluster: Secrets, service: str) -> None:
    """End a rotation: publish only the service's current key. From then on, signatures of the old key are refused."""
    kept = _published(cluster).without(service)
    _publish(cluster, [service], kept)


def _secret(service: str) -> str:
    return f"service-key-{service}"


def _published(cluster: Secrets) -> ServiceKeys:
    jwks = cluster.entries(PUBLIC_KEYS).get(_JWKS)
    return ServiceKeys.parse(jwks.decode()) if jwks else ServiceKeys({})


def _publish(cluster: Secrets, services: Sequence[str], known: ServiceKeys, entry: str = _KEY) -> bool:
    """Publish the `known` keys and the public keys of these services; return whether the published set changed."""
    before = cluster.entries(PUBLIC_KEYS).get(_JWKS)
    for service in services:
        key = PrivateKey.from_pem(service, cluster.entries(_secret(service))[entry].decode())
        known = known.with_key(service, key.public)
    jwks = known.jwks().encode()
    if jwks != before:
        cluster.add(PUBLIC_KEYS, {_JWKS: jwks})
    return jwks != before


def new_key() -> bytes:
    """Return a new Ed25519 private key in PEM (PKCS #8)."""
    return PrivateKey.generate("").pem.encode()
