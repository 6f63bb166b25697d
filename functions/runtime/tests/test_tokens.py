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


class TokenMint:
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
def mint() -> TokenMint:
    return TokenMint()


async def test_a_valid_token_proves_who_calls(mint: TokenMint) -> None:
    identity = await mint.verifier.verify(mint.token(roles=["customer", "admin"]))

    assert (identity.subject, identity.is_admin, identity.is_service) == ("usr_1", True, False)


async def test_an_expired_token_is_refused_even_when_it_was_seen_before(mint: TokenMint) -> None:
    token = mint.token()
    await mint.verifier.verify(token)
    mint.clock.advance(timedelta(minutes=16))

    with pytest.raises(ServiceError) as refused:
        await mint.verifier.verify(token)

    assert refused.value.reason == "TOKEN_EXPIRED"


FORGERIES: dict[str, Callable[[TokenMint], str]] = {
    "garbage": lambda mint: "not.a.token",
    "empty": lambda mint: "",
    "huge": lambda mint: "x" * 100_000,
    "tampered": lambda mint: mint.token()[:-4] + "AAAA",
    "another issuer": lambda mint: mint.token(iss="https://evil.test"),
    "another audience": lambda mint: mint.token(aud="else"),
    "no subject": lambda mint: mint.token(sub=""),
    "a refresh token": lambda mint: mint.token(typ="refresh"),
    "no algorithm": lambda mint: jwt.encode(mint.claims(), "", algorithm="none", headers={"kid": "k1"}),
    "a shared secret": lambda mint: mint.token(key="s" * 64, algorithm="HS256"),
    "an unknown key": lambda mint: mint.token(kid="k9", key=Ed25519PrivateKey.generate()),
    "another key under a known id": lambda mint: mint.token(key=Ed25519PrivateKey.generate()),
    "a person's token with the role service": lambda mint: mint.token(roles=["service"]),
    "a service's key with a person's role": lambda mint: mint.service_token(roles=["admin"]),
    "a service's key for a person": lambda mint: mint.service_token(typ="access", roles=["customer"]),
    "a service that names another": lambda mint: mint.service_token(sub="notifications"),
    "a service's token for another service": lambda mint: mint.service_token(aud="users"),
    "a service's token for people's services": lambda mint: mint.service_token(aud=AUDIENCE),
    "a service whose key nobody knows": lambda mint: mint.service_token(PrivateKey.generate("payments")),
    "a person's token under a service's key id": lambda mint: mint.token(
        kid=mint.payments.key_id, key=mint.keys.private["k1"], aud="orders", typ="service", roles=["service"]
    ),
    "one from the future": lambda mint: mint.token(iat=int(mint.clock.now().timestamp()) + 3600),
    "times that are no numbers": lambda mint: mint.token(nbf="soon"),
    "roles that are no list": lambda mint: mint.token(roles="admin"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_token_is_refused(mint: TokenMint, forgery: str) -> None:
    with pytest.raises(ServiceError) as refused:
        await mint.verifier.verify(FORGERIES[forgery](mint))

    assert (refused.value.code, refused.value.reason) == (Code.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_a_new_key_is_fetched_when_its_id_is_first_seen(mint: TokenMint) -> None:
    await mint.verifier.verify(mint.token())
    mint.clock.advance(timedelta(seconds=6))
    mint.keys.private["k2"] = Ed25519PrivateKey.generate()

    assert (await mint.verifier.verify(mint.token(kid="k2"))).subject == "usr_1"
    assert mint.keys.fetches == 2


async def test_unknown_key_ids_cannot_make_it_fetch_all_the_time(mint: TokenMint) -> None:
    await mint.verifier.verify(mint.token())
    for kid in ("x1", "x2", "x3"):
        with pytest.raises(ServiceError):
            await mint.verifier.verify(mint.token(kid=kid, key=Ed25519PrivateKey.generate()))

    assert mint.keys.fetches == 1


async def test_known_keys_go_on_verifying_while_the_users_service_is_away(mint: TokenMint) -> None:
    await mint.verifier.verify(mint.token())
    mint.keys.down = True
    mint.clock.advance(timedelta(minutes=4))

    assert (await mint.verifier.verify(mint.token(jti="later"))).subject == "usr_1"


async def test_a_person_is_not_believed_after_five_minutes_without_word_of_revocations(
    mint: TokenMint,
) -> None:
    token = mint.token()
    await mint.verifier.verify(token)
    mint.keys.down = True
    mint.clock.advance(timedelta(minutes=5))

    with pytest.raises(ServiceError) as refused:
        await mint.verifier.verify(token)
    assert (refused.value.code, refused.value.reason) == (Code.UNAVAILABLE, "KEYS_UNAVAILABLE")

    mint.keys.down = False
    mint.clock.advance(timedelta(seconds=10))
    assert (await mint.verifier.verify(token)).subject == "usr_1"


async def test_a_service_is_believed_however_long_the_users_service_is_away(mint: TokenMint) -> None:
    mint.keys.down = True
    tokens = ServiceTokens(mint.payments, ISSUER, mint.clock)
    mint.clock.advance(timedelta(hours=1))
    assert (await mint.verifier.verify(tokens.token("orders"))).is_service_named("payments")


@pytest.mark.parametrize("cold", [True, False])
async def test_a_demoted_administrator_with_deadlines_of_5_ms_is_out_within_a_minute(
    mint: TokenMint, cold: bool
) -> None:
    """Each call is cancelled long before the key set, which takes 50 ms, can be there."""
    token = mint.token(roles=["admin"])
    if not cold:
        await mint.verifier.verify(token)
    mint.keys.slow = 0.05
    mint.clock.advance(timedelta(seconds=1))
    now = mint.clock.now().timestamp()
    mint.keys.revoked = [Revoked(subject_digest("usr_1"), now, now)]

    async def call() -> str:
        try:
            async with asyncio.timeout(0.005):
                await mint.verifier.verify(token)
        except TimeoutError:
            return "late"
        except ServiceError as error:
            return error.reason
        return "in"

    outcomes = []
    for _ in range(59):
        outcomes.append(await call())
        mint.clock.advance(timedelta(seconds=1))
        await asyncio.sleep(0.01)

    assert outcomes[-1] == "TOKEN_EXPIRED"
    assert mint.keys.fetches <= 3


async def test_without_any_key_the_answer_is_unavailable_not_refused(mint: TokenMint) -> None:
    mint.keys.down = True

    with pytest.raises(ServiceError) as failure:
        await mint.verifier.verify(mint.token())

    assert failure.value.code is Code.UNAVAILABLE


async def test_many_at_once_without_keys_share_one_attempt_to_fetch_them(mint: TokenMint) -> None:
    mint.keys.down = True
    tokens = [mint.token(jti=str(number)) for number in range(20)]
    outcomes = await asyncio.gather(*map(mint.verifier.verify, tokens), return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {ServiceError}
    assert mint.keys.fetches == 1


async def test_a_service_token_proves_a_service_and_is_renewed_before_its_end(mint: TokenMint) -> None:
    tokens = ServiceTokens(mint.payments, ISSUER, mint.clock)
    first = tokens.token("orders")
    mint.clock.advance(timedelta(minutes=3))
    assert tokens.token("orders") == first
    mint.clock.advance(timedelta(minutes=1, seconds=1))
    second = tokens.token("orders")

    assert second != first
    assert (await mint.verifier.verify(second)).is_service_named("payments")


async def test_a_service_token_is_for_the_service_that_it_was_made_for_alone(mint: TokenMint) -> None:
    tokens = ServiceTokens(mint.payments, ISSUER, mint.clock)
    assert (await mint.verifier_of("orders").verify(tokens.token("orders"))).subject == "payments"
    for name in ("users", "", AUDIENCE):
        with pytest.raises(ServiceError):
            await mint.verifier_of(name).verify(tokens.token("orders"))


async def test_while_a_service_key_is_rotated_both_are_taken_and_then_only_the_new_one(
    mint: TokenMint,
) -> None:
    old, new = mint.payments, PrivateKey.generate("payments")
    mint.services = mint.services.with_key("payments", new.public)
    both = mint.verifier_of("orders")
    for key in (old, new):
        token = ServiceTokens(key, ISSUER, mint.clock).token("orders")
        assert (await both.verify(token)).is_service_named("payments")
    mint.services = mint.services.without("payments").with_key("payments", new.public)
    after = mint.verifier_of("orders")
    with pytest.raises(ServiceError):
        await after.verify(ServiceTokens(old, ISSUER, mint.clock).token("orders"))
    assert (await after.verify(ServiceTokens(new, ISSUER, mint.clock).token("orders"))).is_service


async def test_an_identity_does_not_show_its_token(mint: TokenMint) -> None:
    token = mint.token()

    assert token not in repr(await mint.verifier.verify(token))


async def test_an_empty_key_set_is_a_passing_fault_and_takes_no_key_away(mint: TokenMint) -> None:
    token, keys = mint.token(), mint.keys.private
    mint.keys.private = {}
    with pytest.raises(ServiceError) as refused:
        await mint.verifier.verify(token)
    assert refused.value.code is Code.UNAVAILABLE
    mint.keys.private = keys
    mint.clock.advance(timedelta(seconds=1))
    await mint.verifier.verify(token)
    mint.keys.private = {}
    mint.clock.advance(timedelta(seconds=31))
    assert (await mint.verifier.verify(token)).subject == "usr_1"
