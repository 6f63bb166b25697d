"""The keys that verify access tokens."""

from __future__ import annotations

from fastapi import Request, Response

from gateway.middleware.request_context import request_context_of
from gateway.models import users as models
from gateway.route_options import declare
from gateway.routes.params import routes

router = routes("keys")


@router.get("/.well-known/jwks.json", **declare("open", 200, models.KeySet))
async def read_keys(request: Request) -> Response:
    """Read the public keys of access tokens (RFC 7517)."""
    keys = await request_context_of(request).gateway.keys.published()
    return Response(keys, 200, {"cache-control": "public, max-age=60"}, "application/json")
