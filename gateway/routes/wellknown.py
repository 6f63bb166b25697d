"""The route of the public keys that verify access tokens."""

from __future__ import annotations

from fastapi import Response

from gateway.dependencies import Context
from gateway.models import users as models
from gateway.routing import Access, ApiRouter

router = ApiRouter("keys")


@router.get("/.well-known/jwks.json", access=Access.PUBLIC, response_model=models.KeySet)
async def read_keys(context: Context) -> Response:
    """Read the public keys of access tokens (RFC 7517)."""
    keys = await context.state.keys.published()
    return Response(keys, 200, {"cache-control": "public, max-age=60"}, "application/json")
