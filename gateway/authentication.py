"""Who calls: access tokens become identities."""

from __future__ import annotations

from functions.runtime import identity
from functions.runtime.errors import unauthenticated
from functions.runtime.identity import Identity
from gateway.middleware.request_context import RequestContext


async def authenticate(request_context: RequestContext) -> Identity | None:
    """Make the person that the Authorization header names the caller; without the header, do nothing.

    Raises:
        Unauthenticated: TOKEN_INVALID, TOKEN_EXPIRED.
        ResourceExhausted: RATE_LIMITED.
    """
    given = request_context.headers.get(b"authorization")
    if given is None:
        return None
    scheme, _, token = given.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise unauthenticated(
            "TOKEN_INVALID", "The Authorization header must be `Bearer` and an access token."
        )
    return await enter_token(request_context, token)


async def enter_token(request_context: RequestContext, token: str) -> Identity:
    """Make the person that an access token names the caller, and count the request. Raises as `authenticate` does."""
    state = request_context.state
    caller = await state.verifier.verify(token)
    if caller.is_service:
        raise unauthenticated("TOKEN_INVALID", "The access token is not valid.")
    request_context.subject = caller.subject
    request_context.count(state.user_rates, caller.subject)
    identity.enter(caller)
    return caller
