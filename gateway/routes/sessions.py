"""Logging in and out."""

from __future__ import annotations

from fastapi import Request, Response

from gateway.limits import PASSWORD_COST
from gateway.middleware.request_context import clients_of, request_context_of
from gateway.models import users as models
from gateway.responses import answer, empty
from gateway.route_options import declare
from gateway.routes.params import routes
from proto.shop.users.v1 import users_pb2 as pb

router = routes("sessions")

_DEVICE_COOKIE = "__Secure-shop_device"
"""Shows that this browser logged in before; no proof of who somebody is."""


@router.post(
    "/v1/sessions",
    **declare(
        "open",
        200,
        models.Session,
        cost=PASSWORD_COST,
        sends=("Set-Cookie",),
        problems={401: "INVALID_CREDENTIALS", 429: "TOO_MANY_ATTEMPTS, RATE_LIMITED"},
    ),
)
async def log_in(request: Request, body: models.Login) -> Response:
    """Start a session.

    An unknown e-mail and a wrong password answer alike. After five failures within 15 minutes from one network address,
    or many from all, 429; a device that logged in before (`device_token`, or the cookie) has five of its own.
    """
    users = clients_of(request).users
    wanted = pb.LoginRequest(
        email=body.email,
        password=body.password,
        client_address=request_context_of(request).address,
        device_token=body.device_token or request.cookies.get(_DEVICE_COOKIE, "")[:256],
    )
    session = models.session((await users.write(users.stub.Login, wanted)).session)
    response = answer(session)
    if session["device_token"]:
        response.set_cookie(
            _DEVICE_COOKIE,
            session["device_token"],
            max_age=180 * 24 * 3600,
            path="/v1/sessions",
            secure=True,
            httponly=True,
            samesite="strict",
        )
    return response


@router.post(
    "/v1/sessions/refresh",
    **declare("open", 200, models.Session, problems={401: "INVALID_REFRESH_TOKEN, REFRESH_TOKEN_REUSED"}),
)
async def refresh_session(request: Request, body: models.GivenRefreshToken) -> Response:
    """Trade a refresh token for new tokens.

    Each refresh token works once; using one again ends its whole session.
    """
    users = clients_of(request).users
    wanted = pb.RefreshRequest(refresh_token=body.refresh_token)
    return answer(models.session((await users.write(users.stub.Refresh, wanted)).session))


@router.post("/v1/sessions/logout", **declare("open", 204))
async def log_out(request: Request, body: models.GivenRefreshToken) -> Response:
    """End a session.

    An unknown token is ignored.
    """
    return await _end_session(request, body)


@router.delete("/v1/sessions", **declare("open", 204), deprecated=True)
async def delete_session(request: Request, body: models.GivenRefreshToken) -> Response:
    """End a session, by a DELETE that has a body.

    Many clients and proxies drop the body of a DELETE: use `POST /v1/sessions/logout`.
    """
    return await _end_session(request, body)


async def _end_session(request: Request, body: models.GivenRefreshToken) -> Response:
    users = clients_of(request).users
    await users.write(users.stub.Logout, pb.LogoutRequest(refresh_token=body.refresh_token))
    return empty()


@router.post(
    "/v1/password-resets",
    **declare("open", 204, problems={429: "TOO_MANY_ATTEMPTS, RATE_LIMITED"}),
)
async def request_password_reset(request: Request, body: models.ForgottenPassword) -> Response:
    """Have a code mailed that resets the password.

    Answers alike whether or not there is such an account; at most three mails in 15 minutes.
    """
    users = clients_of(request).users
    address = request_context_of(request).address
    wanted = pb.RequestPasswordResetRequest(email=body.email, client_address=address)
    await users.write(users.stub.RequestPasswordReset, wanted)
    return empty()


@router.post(
    "/v1/password-resets/confirm",
    **declare(
        "open",
        204,
        cost=PASSWORD_COST,
        problems={400: "INVALID_ARGUMENT, MAILED_TOKEN_INVALID, WEAK_PASSWORD, MALFORMED_JSON"},
    ),
)
async def reset_password(request: Request, body: models.ResetPassword) -> Response:
    """Reset the password by the mailed code.

    It works once, for an hour. Every session ends.
    """
    users = clients_of(request).users
    wanted = pb.ResetPasswordRequest(token=body.token, new_password=body.new_password)
    await users.write(users.stub.ResetPassword, wanted)
    return empty()
