"""Makes what must never stand in a repository, inside the cluster: the key of the calls between services, and the first
administrator's password.

The overlay brings the two Secrets empty, so that this needs the right to read and patch these two and nothing else (the
right to create cannot be bound to a name).
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SECONDS: Final = 10.0


class Secrets(Protocol):
    """The Secrets of one namespace."""

    def keys(self, name: str) -> set[str]:
        """Which entries a Secret has. Raises OSError."""

    def add(self, name: str, entries: Mapping[str, bytes]) -> None:
        """Write entries into a Secret that exists. Raises OSError."""


class Cluster:
    """Secrets, over the Kubernetes API at `url` (https://host:port)."""

    def __init__(self, url: str, namespace: str, token: str, tls: ssl.SSLContext | None) -> None:
        self._base = f"{url}/api/v1/namespaces/{namespace}/secrets"
        self._token = token
        self._tls = tls

    @classmethod
    def from_inside(cls, account: Path = _ACCOUNT) -> Cluster:
        """As the pod's own service account."""
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
        host = f"[{host}]" if ":" in host else host
        namespace, token = (account / "namespace").read_text(), (account / "token").read_text()
        return cls(f"https://{host}:{port}", namespace, token, tls)

    def keys(self, name: str) -> set[str]:
        """See Secrets."""
        return set(self._call("GET", name).get("data") or ())

    def add(self, name: str, entries: Mapping[str, bytes]) -> None:
        """See Secrets."""
        data = {key: b64encode(value).decode() for key, value in entries.items()}
        self._call("PATCH", name, json.dumps({"data": data}).encode())

    def _call(self, method: str, name: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/merge-patch+json"}
        request = urllib.request.Request(f"{self._base}/{name}", body, headers, method=method)  # noqa: S310 - ours
        with urllib.request.urlopen(request, timeout=_SECONDS, context=self._tls) as answer:  # noqa: S310 - ours
            found: dict[str, Any] = json.load(answer)
            return found


def fill(cluster: Secrets, admin_email: str) -> list[str]:
    """Make what is missing, and name it. The key comes last: pods wait for it, and then find the administrator, too."""
    made = []
    if "password" not in cluster.keys("admin"):
        password = secrets.token_urlsafe(18)
        cluster.add("admin", {"email": admin_email.encode(), "password": password.encode()})
        made.append("admin")
    if "service.pem" not in cluster.keys("service-key"):
        cluster.add("service-key", {"service.pem": new_key()})
        made.append("service-key")
    return made


def new_key() -> bytes:
    """An Ed25519 private key: PEM, PKCS #8."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # only at the first run
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # as above

    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
