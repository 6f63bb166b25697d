import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from events.service_keys import PrivateKey, ServiceKeys
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError, unavailable
from functions.runtime.key_set import Fetched, KeySetCache, Revoked, subject_digest
from functions.runtime.tokens import JwtVerifier, ServiceTokens

ISSUER, AUDIENCE = "https://shop.test", "shop"


class Keys:
    """A users service's signing keys, counted fetches, and a switch to take it away."""

    def __init__(self) -> None:
        self.private = {"k1": Ed25519PrivateKey.generate()}
        self.fetches = 0
        self.down = False
        self.slow = 0.0
        self.revoked: list[Revoked] = []

    async def fetch(self, since: float | None, cursor: str) -> Fetched:
        self.fetches += 1
        await asyncio.sleep(self.slow)
        if self.down:
            raise unavailable("SERVICE_UNAVAILABLE", "down")
        keys = [
            {**json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key())), "kid": kid}
            for kid, key in self.private.items()
        ]
        return Fetched(json.dumps({"keys": keys}), self.revoked)


class Desk:
    """Mints what the tests need, and verifies it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.keys = Keys()
        self.payments = PrivateKey.generate("payments")
        self.services = ServiceKeys({}).with_key("payments", self.payments.public)
        self.verifier = self.verifier_of("orders")

    def verifier_of(self, name: str) -> JwtVerifier:
        """What the service of this name verifies with."""
        keys = KeySetCache(self.keys.fetch, self.clock)
        return JwtVerifier(keys, self.services, ISSUER, AUDIENCE, self.clock, name)

    def service_token(self, key: PrivateKey | None = None, **changed: Any) -> str:
        """As payments calls orders, unless `changed`."""
        signing = key or self.payments
        claims = {"aud": "orders", "sub": "payments", "typ": "service", "roles": ["service"], **changed}
        private = Ed25519PrivateKey.from_private_bytes(signing.seed)
        return jwt.encode(self.claims(**claims), private, "EdDSA", {"kid": signing.key_id})

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(self.clock.now().timestamp())
        base = {"iss": ISSUER, "aud": AUDIENCE, "sub": "usr_1", "jti": "j", "iat": now, "exp": now + 900}
        return {**base, "roles": ["customer"], "typ": "access", **changed}

    def token(self, kid: str = "k1", key: Any = None, algorithm: str = "EdDSA", **changed: Any) -> str:
        signing = key or self.keys.private[kid]
        return jwt.encode(self.claims(**changed), signing, algorithm=algorithm, headers={"kid": kid})


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_valid_token_proves_who_calls(desk: Desk) -> None:
    identity = await desk.verifier.verify(desk.token(roles=["customer", "admin"]))

    assert (identity.subject, identity.is_admin, identity.is_service) == ("usr_1", True, False)


async def test_an_expired_token_is_refused_even_when_it_was_seen_before(desk: Desk) -> None:
    token = desk.token()
    await desk.verifier.verify(token)
    desk.clock.advance(timedelta(minutes=16))

    with pytest.raises(ServiceError) as refused:
        await desk.verifier.verify(token)

    assert refused.value.reason == "TOKEN_EXPIRED"


FORGERIES: dict[str, Callable[[Desk], str]] = {
    "garbage": lambda desk: "not.a.token",
    "empty": lambda desk: "",
    "huge": lambda desk: "x" * 100_000,
    "tampered": lambda desk: desk.token()[:-4] + "AAAA",
    "another issuer": lambda desk: desk.token(iss="https://evil.test"),
    "another audience": lambda desk: desk.token(aud="else"),
    "no subject": lambda desk: desk.token(sub=""),
    "a refresh token": lambda desk: desk.token(typ="refresh"),
    "no algorithm": lambda desk: jwt.encode(desk.claims(), "", algorithm="none", headers={"kid": "k1"}),
    "a shared secret": lambda desk: desk.token(key="s" * 64, algorithm="HS256"),
    "an unknown key": lambda desk: desk.token(kid="k9", key=Ed25519PrivateKey.generate()),
    "another key under a known id": lambda desk: desk.token(key=Ed25519PrivateKey.generate()),
    "a person's token with the role service": lambda desk: desk.token(roles=["service"]),
    "a service's key with a person's role": lambda desk: desk.service_token(roles=["admin"]),
    "a service's key for a person": lambda desk: desk.service_token(typ="access", roles=["customer"]),
    "a service that names another": lambda desk: desk.service_token(sub="notifications"),
    "a service's token for another service": lambda desk: desk.service_token(aud="users"),
    "a service's token for people's services": lambda desk: desk.service_token(aud=AUDIENCE),
    "a service whose key nobody knows": lambda desk: desk.service_token(PrivateKey.generate("payments")),
    "a person's token under a service's key id": lambda desk: desk.token(
        kid=desk.payments.key_id, key=desk.keys.private["k1"], aud="orders", typ="service", roles=["service"]
    ),
    "one from the future": lambda desk: desk.token(iat=int(desk.clock.now().timestamp()) + 3600),
    "times that are no numbers": lambda desk: desk.token(nbf="soon"),
    "roles that are no list": lambda desk: desk.token(roles="admin"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_token_is_refused(desk: Desk, forgery: str) -> None:
    with pytest.raises(ServiceError) as refused:
        await desk.verifier.verify(FORGERIES[forgery](desk))

    assert (refused.value.code, refused.value.reason) == (Code.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_a_new_key_is_fetched_when_its_id_is_first_seen(desk: Desk) -> None:
    await desk.verifier.verify(desk.token())
    desk.clock.advance(timedelta(seconds=6))
    desk.keys.private["k2"] = Ed25519PrivateKey.generate()

    assert (await desk.verifier.verify(desk.token(kid="k2"))).subject == "usr_1"
    assert desk.keys.fetches == 2


async def test_unknown_key_ids_cannot_make_it_fetch_all_the_time(desk: Desk) -> None:
    await desk.verifier.verify(desk.token())
    for kid in ("x1", "x2", "x3"):
        with pytest.raises(ServiceError):
            await desk.verifier.verify(desk.token(kid=kid, key=Ed25519PrivateKey.generate()))

    assert desk.keys.fetches == 1


async def test_known_keys_go_on_verifying_while_the_users_service_is_away(desk: Desk) -> None:
    await desk.verifier.verify(desk.token())
    desk.keys.down = True
    desk.clock.advance(timedelta(minutes=4))

    assert (await desk.verifier.verify(desk.token(jti="later"))).subject == "usr_1"


async def test_a_person_is_not_believed_after_five_minutes_without_word_of_revocations(desk: Desk) -> None:
    token = desk.token()
    await desk.verifier.verify(token)
    desk.keys.down = True
    desk.clock.advance(timedelta(minutes=5))

    with pytest.raises(ServiceError) as refused:
        await desk.verifier.verify(token)
    assert (refused.value.code, refused.value.reason) == (Code.UNAVAILABLE, "KEYS_UNAVAILABLE")

    desk.keys.down = False
    desk.clock.advance(timedelta(seconds=10))
    assert (await desk.verifier.verify(token)).subject == "usr_1"


async def test_a_service_is_believed_however_long_the_users_service_is_away(desk: Desk) -> None:
    desk.keys.down = True
    tokens = ServiceTokens(desk.payments, ISSUER, desk.clock)
    desk.clock.advance(timedelta(hours=1))
    assert (await desk.verifier.verify(tokens.token("orders"))).is_service_named("payments")


@pytest.mark.parametrize("cold", [True, False])
async def test_a_demoted_administrator_with_deadlines_of_5_ms_is_out_within_a_minute(
    desk: Desk, cold: bool
) -> None:
    """Each call is cancelled long before the key set, which takes 50 ms, can be there."""
    token = desk.token(roles=["admin"])
    if not cold:
        await desk.verifier.verify(token)
    desk.keys.slow = 0.05
    desk.clock.advance(timedelta(seconds=1))
    now = desk.clock.now().timestamp()
    desk.keys.revoked = [Revoked(subject_digest("usr_1"), now, now)]

    async def call() -> str:
        try:
            async with asyncio.timeout(0.005):
                await desk.verifier.verify(token)
        except TimeoutError:
            return "late"
        except ServiceError as error:
            return error.reason
        return "in"

    outcomes = []
    for _ in range(59):
        outcomes.append(await call())
        desk.clock.advance(timedelta(seconds=1))
        await asyncio.sleep(0.01)

    assert outcomes[-1] == "TOKEN_EXPIRED"
    assert desk.keys.fetches <= 3


async def test_without_any_key_the_answer_is_unavailable_not_refused(desk: Desk) -> None:
    desk.keys.down = True

    with pytest.raises(ServiceError) as failure:
        await desk.verifier.verify(desk.token())

    assert failure.value.code is Code.UNAVAILABLE


async def test_many_at_once_without_keys_share_one_attempt_to_fetch_them(desk: Desk) -> None:
    desk.keys.down = True
    tokens = [desk.token(jti=str(number)) for number in range(20)]
    outcomes = await asyncio.gather(*map(desk.verifier.verify, tokens), return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {ServiceError}
    assert desk.keys.fetches == 1


async def test_a_service_token_proves_a_service_and_is_renewed_before_its_end(desk: Desk) -> None:
    tokens = ServiceTokens(desk.payments, ISSUER, desk.clock)
    first = tokens.token("orders")
    desk.clock.advance(timedelta(minutes=3))
    assert tokens.token("orders") == first
    desk.clock.advance(timedelta(minutes=1, seconds=1))
    second = tokens.token("orders")

    assert second != first
    assert (await desk.verifier.verify(second)).is_service_named("payments")


async def test_a_service_token_is_for_the_service_that_it_was_made_for_alone(desk: Desk) -> None:
    tokens = ServiceTokens(desk.payments, ISSUER, desk.clock)
    assert (await desk.verifier_of("orders").verify(tokens.token("orders"))).subject == "payments"
    for name in ("users", "", AUDIENCE):
        with pytest.raises(ServiceError):
            await desk.verifier_of(name).verify(tokens.token("orders"))


async def test_while_a_service_key_is_rotated_both_are_taken_and_then_only_the_new_one(desk: Desk) -> None:
    old, new = desk.payments, PrivateKey.generate("payments")
    desk.services = desk.services.with_key("payments", new.public)
    both = desk.verifier_of("orders")
    for key in (old, new):
        token = ServiceTokens(key, ISSUER, desk.clock).token("orders")
        assert (await both.verify(token)).is_service_named("payments")
    desk.services = desk.services.without("payments").with_key("payments", new.public)
    after = desk.verifier_of("orders")
    with pytest.raises(ServiceError):
        await after.verify(ServiceTokens(old, ISSUER, desk.clock).token("orders"))
    assert (await after.verify(ServiceTokens(new, ISSUER, desk.clock).token("orders"))).is_service


async def test_an_identity_does_not_show_its_token(desk: Desk) -> None:
    token = desk.token()

    assert token not in repr(await desk.verifier.verify(token))


async def test_an_empty_key_set_is_a_passing_fault_and_takes_no_key_away(desk: Desk) -> None:
    token, keys = desk.token(), desk.keys.private
    desk.keys.private = {}
    with pytest.raises(ServiceError) as refused:
        await desk.verifier.verify(token)
    assert refused.value.code is Code.UNAVAILABLE
    desk.keys.private = keys
    desk.clock.advance(timedelta(seconds=1))
    await desk.verifier.verify(token)
    desk.keys.private = {}
    desk.clock.advance(timedelta(seconds=31))
    assert (await desk.verifier.verify(token)).subject == "usr_1"
