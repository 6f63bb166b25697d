"""Authentication: turns access tokens into identities."""

from __future__ import annotations

from functions.runtime import identity
from functions.runtime.errors import unauthenticated
from functions.runtime.identity import Identity
from gateway.middleware.request_context import RequestContext


async def authenticate(request_context: RequestContext) -> Identity | None:
    """Authenticate the caller by the Authorization header, and return the identity; without the header, return None.

    Raises UNAUTHENTICATED (TOKEN_INVALID, TOKEN_EXPIRED) and RESOURCE_EXHAUSTED (RATE_LIMITED).
    """
    given = request_context.headers.get(b"authorization")
    if given is None:
        return None
    scheme, _, token = given.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise unauthenticated("TOKEN_INVALID", "The Authorization header must be `Bearer` and an access token.")
    return await enter_token(request_context, token)


async def enter_token(request_context: RequestContext, token: str) -> Identity:
    """Authenticate the caller by an access token, and count the request. Raises as `authenticate` does."""
    state = request_context.state
    caller = await state.verifier.verify(token)
    if caller.is_service:
        raise unauthenticated("TOKEN_INVALID", "The access token is not valid.")
    request_context.subject = caller.subject
    request_context.count(state.user_rates, caller.subject)
    identity.enter(caller)
    return caller
