"""The keys that verify access tokens."""

from __future__ import annotations

from fastapi import Request, Response

from gateway.declare import declare
from gateway.exchange import exchange_of
from gateway.models import users as models
from gateway.routes.params import routes

router = routes("keys")


@router.get("/.well-known/jwks.json", **declare("open", 200, models.KeySet))
async def read_keys(request: Request) -> Response:
    """Read the public keys of access tokens (RFC 7517)."""
    keys = await exchange_of(request).gateway.keys.published()
    return Response(keys, 200, {"cache-control": "public, max-age=60"}, "application/json")
