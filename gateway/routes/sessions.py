"""Logging in and out."""

from __future__ import annotations

from fastapi import Request, Response

from gateway import api_errors as errors
from gateway.dependencies import Context, UsersClient
from gateway.limits import PASSWORD_COST
from gateway.models import users as models
from gateway.responses import JsonResponse
from gateway.routing import Access, ApiRouter
from proto.shop.users.v1 import users_pb2 as pb

router = ApiRouter("sessions")

_DEVICE_COOKIE = "__Secure-shop_device"
"""Shows that this browser logged in before; it does not prove who somebody is."""


@router.post(
    "/v1/sessions",
    access=Access.PUBLIC,
    cost=PASSWORD_COST,
    response_model=models.Session,
    response_headers=["Set-Cookie"],
    errors=[errors.INVALID_CREDENTIALS, errors.TOO_MANY_ATTEMPTS],
)
async def log_in(request: Request, body: models.Login, context: Context, users: UsersClient) -> Response:
    """Start a session.

    An unknown e-mail and a wrong password answer alike. After five failures within 15 minutes from one network address,
    or many from all, 429; a device that logged in before (`device_token`, or the cookie) has five of its own.
    """
    command = pb.LoginRequest(
        email=body.email,
        password=body.password,
        client_address=context.address,
        device_token=body.device_token or request.cookies.get(_DEVICE_COOKIE, "")[:256],
    )
    session = models.session((await users.write(users.stub.Login, command)).session)
    response = JsonResponse(session)
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
    "/v1/sessions/refresh", access=Access.PUBLIC, errors=[errors.INVALID_REFRESH_TOKEN, errors.REFRESH_TOKEN_REUSED]
)
async def refresh_session(body: models.GivenRefreshToken, users: UsersClient) -> models.Session:
    """Trade a refresh token for new tokens.

    Each refresh token works once; using one again ends its whole session.
    """
    command = pb.RefreshRequest(refresh_token=body.refresh_token)
    return models.session((await users.write(users.stub.Refresh, command)).session)


@router.post("/v1/sessions/logout", access=Access.PUBLIC)
async def log_out(body: models.GivenRefreshToken, users: UsersClient) -> None:
    """End a session.

    An unknown token is ignored.
    """
    await users.write(users.stub.Logout, pb.LogoutRequest(refresh_token=body.refresh_token))


@router.delete("/v1/sessions", access=Access.PUBLIC, deprecated=True)
async def delete_session(body: models.GivenRefreshToken, users: UsersClient) -> None:
    """End a session, by a DELETE that has a body.

    Many clients and proxies drop the body of a DELETE: use `POST /v1/sessions/logout`.
    """
    await log_out(body, users)


@router.post("/v1/password-resets", access=Access.PUBLIC, errors=[errors.TOO_MANY_ATTEMPTS])
async def request_password_reset(body: models.ForgottenPassword, context: Context, users: UsersClient) -> None:
    """Have a code mailed that resets the password.

    Answers alike whether or not there is such an account. In 15 minutes, requests from one network address cause at
    most three mails, and all requests ten.
    """
    command = pb.RequestPasswordResetRequest(email=body.email, client_address=context.address)
    await users.write(users.stub.RequestPasswordReset, command)


@router.post(
    "/v1/password-resets/confirm",
    access=Access.PUBLIC,
    cost=PASSWORD_COST,
    errors=[errors.MAILED_TOKEN_INVALID, errors.WEAK_PASSWORD],
)
async def reset_password(body: models.ResetPassword, users: UsersClient) -> None:
    """Reset the password by the mailed code.

    It works once, for an hour. Every session ends.
    """
    command = pb.ResetPasswordRequest(token=body.token, new_password=body.new_password)
    await users.write(users.stub.ResetPassword, command)
