"""Access tokens that nobody should believe, each with a name. What is signed here with the platform's own keys says
something wrong; everything else is signed by somebody else, or by nobody."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.security.callers import AUDIENCE, ISSUER, Callers

EVIL = "https://evil.example.com"


class Forger:
    """Knows the signing keys, as nobody outside does, and the claims of a good token."""

    def __init__(self, callers: Callers, folder: Path) -> None:
        self.callers = callers
        self.subject = callers.people["admin"].id
        database = sqlite3.connect(f"file:{folder / 'store' / 'users.db'}?mode=ro", uri=True)
        with closing(database):
            (data,) = database.execute("SELECT data FROM entity WHERE kind = 'keys'").fetchone()
        current = json.loads(data)["current"]
        self.kid: str = current["kid"]
        self.key = ed25519.Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(current["private"] + "="))
        self.public = self.key.public_key()

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Those of a good token, but for `changed`; None leaves one out."""
        now = int(time.time())
        good = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": self.subject,
            "jti": uuid4().hex,
            "iat": now,
            "exp": now + 600,
            "roles": ["admin", "customer"],
            "typ": "access",
        }
        return {name: value for name, value in (good | changed).items() if value is not None}

    def signed(self, headers: dict[str, Any] | None = None, **changed: Any) -> str:
        """By the platform's key."""
        return jwt.encode(self.claims(**changed), self.key, "EdDSA", {"kid": self.kid, **(headers or {})})

    def corpus(self) -> dict[str, str]:
        """All forgeries by name."""
        found = dict(self._unsigned())
        found |= dict(self._by_others())
        found |= dict(self._wrong_claims())
        found |= dict(self._damaged())
        return found

    def _unsigned(self) -> Iterator[tuple[str, str]]:
        for alg in ("none", "None", "NONE", "nOnE", "", None):
            yield f"alg {alg}", f"{part({'alg': alg, 'kid': self.kid})}.{part(self.claims())}."
        body = f"{part({'alg': 'EdDSA', 'kid': self.kid})}.{part(self.claims())}"
        yield "no signature", body + "."
        yield "two parts", body

    def _by_others(self) -> Iterator[tuple[str, str]]:
        claims, kid = self.claims(), {"kid": self.kid}
        raw = self.public.public_bytes_raw()
        pem = self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for name, secret in (("raw key", raw), ("base64url", encoded(raw).encode()), ("PEM", pem)):
            yield f"HMAC keyed by the public key as {name}", hmac_signed(claims, kid, secret)
        yield "HMAC keyed by nothing", hmac_signed(claims, kid, b"")
        yield "RS256", jwt.encode(claims, rsa.generate_private_key(65537, 2048), "RS256", kid)
        yield "ES256", jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256", kid)
        own = ed25519.Ed25519PrivateKey.generate()
        jwk = {
            "kty": "OKP",
            "crv": "Ed25519",
            "kid": "mine",
            "x": encoded(own.public_key().public_bytes_raw()),
        }
        named: dict[str, dict[str, Any]] = {
            "another key under our kid": kid,
            "a kid of its own": {"kid": "mine"},
            "jwk": {"kid": "mine", "jwk": jwk},
            "jwk under our kid": {**kid, "jwk": jwk},
            "jku": {"kid": "mine", "jku": f"{EVIL}/jwks.json"},
            "x5u": {"kid": "mine", "x5u": f"{EVIL}/chain.pem"},
            "x5c": {"kid": "mine", "x5c": [encoded(raw)]},
            "kid as a path": {"kid": "../../../../dev/null"},
            "kid as SQL": {"kid": "x' UNION SELECT 'mine' --"},
            "kid as an address": {"kid": f"{EVIL}/key"},
            "kid of a service key": {"kid": self.callers.key_of("orders").key_id},
            "an empty kid": {"kid": ""},
            "a long kid": {"kid": "k" * 2000},
            "no kid": {},
            "critical extensions": {**kid, "crit": ["b64"], "b64": False},
        }
        for name, headers in named.items():
            yield name, jwt.encode(claims, own, "EdDSA", headers)
        for odd in (None, 1, ["mine"], {"a": "b"}):
            body = f"{part({'alg': 'EdDSA', 'kid': odd})}.{part(claims)}"
            yield f"kid {odd}", f"{body}.{encoded(own.sign(body.encode()))}"

    def _wrong_claims(self) -> Iterator[tuple[str, str]]:
        now = int(time.time())
        named: dict[str, dict[str, Any]] = {
            "expired": {"iat": now - 1000, "exp": now - 1},
            "expired long ago": {"iat": 0, "exp": 1},
            "not yet valid": {"nbf": now + 3600},
            "from the future": {"iat": now + 3600, "exp": now + 7200},
            "another issuer": {"iss": EVIL},
            "another audience": {"aud": "warehouse"},
            "another type": {"typ": "refresh"},
            "a service's type": {"typ": "service"},
            "a service's role": {"roles": ["service"]},
            "roles as text": {"roles": "admin"},
            "roles as numbers": {"roles": [1]},
            "an empty subject": {"sub": ""},
            "a subject that is no text": {"sub": 7},
            "an expiry that is no time": {"exp": "never"},
            **{f"no {claim}": {claim: None} for claim in ("iss", "aud", "sub", "jti", "iat", "exp", "roles", "typ")},
        }
        for name, changed in named.items():
            yield name, self.signed(**changed)
        taken_over: dict[str, dict[str, Any]] = {
            "a person's token by a service key": {},
            "a service that is admin": {"typ": "service"},
            "an expired service": {"typ": "service", "roles": ["service"], "exp": now - 1},
            "a service for everybody": {"typ": "service", "roles": ["service"], "sub": "notifications"},
            "a service that names another": {
                "typ": "service",
                "roles": ["service"],
                "sub": "notifications",
                "aud": ["users", "products", "orders", "payments", "notifications"],
            },
        }
        for name, changed in taken_over.items():
            yield name, self.by_service("products", **changed)

    def by_service(self, service: str, **changed: Any) -> str:
        """These claims, signed with the key of a service that was taken over."""
        key = self.callers.key_of(service)
        private = ed25519.Ed25519PrivateKey.from_private_bytes(key.seed)
        return jwt.encode(self.claims(**changed), private, "EdDSA", {"kid": key.key_id})

    def _damaged(self) -> Iterator[tuple[str, str]]:
        good = self.signed(roles=["customer"])
        head, body, signature = good.split(".")
        yield "tampered claims", f"{head}.{part(self.claims())}.{signature}"
        doubled = json.dumps(self.claims())[:-1] + ', "roles": ["admin"], "sub": "usr_x"}'
        yield "claims twice", f"{head}.{encoded(doubled.encode())}.{signature}"
        flipped = "B" if signature[5] != "B" else "C"
        yield "tampered signature", f"{head}.{body}.{signature[:5]}{flipped}{signature[6:]}"
        for length in (1, len(good) // 2, len(good) - 2):
            yield f"cut to {length}", good[:length]
        yield "a refresh token", str(self.callers.people["customer"].tokens["refresh_token"])
        yield "nested too deep", f"{head}.{encoded(b'[' * 1000)}.{signature}"
        yield "no JSON", f"{head}.{encoded(b'no JSON')}.{signature}"
        yield "dots", "..." * 10
        yield "long", good + "A" * 5000


def encoded(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def part(content: dict[str, Any]) -> str:
    """Header or claims."""
    return encoded(json.dumps(content).encode())


def hmac_signed(claims: dict[str, Any], headers: dict[str, Any], secret: bytes) -> str:
    """HS256 by hand: libraries refuse to sign with a public key."""
    import hashlib
    import hmac

    body = f"{part({'alg': 'HS256', **headers})}.{part(claims)}"
    return f"{body}.{encoded(hmac.digest(secret, body.encode(), hashlib.sha256))}"
