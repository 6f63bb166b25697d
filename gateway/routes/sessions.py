"""Routes of sessions: log in, refresh, log out, and reset a password."""

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
"""Shows that this browser has logged in before. It does not authenticate anybody."""


@router.post(
    "/v1/sessions",
    access=Access.PUBLIC,
    cost=PASSWORD_COST,
    response_model=models.Session,
    response_headers=["Set-Cookie"],
    errors=[errors.INVALID_CREDENTIALS, errors.TOO_MANY_ATTEMPTS],
)
async def log_in(request: Request, body: models.Login, context: Context, users: UsersClient) -> Response:
    """Log in and start a session.

    An unknown e-mail address and a wrong password get the same error. Within 15 minutes, five failed logins to an
    account from one network address lead to 429, and so does a larger number from all addresses together. A device that
    has logged in to the account before (`device_token` or cookie) has its own limit of five.
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
    """Exchange a refresh token for new tokens.

    Each refresh token is valid once. Using it again ends the session.
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
    """End a session, with a DELETE request that has a body.

    Many clients and proxies drop the body of a DELETE request: use `POST /v1/sessions/logout` instead.
    """
    await log_out(body, users)


@router.post("/v1/password-resets", access=Access.PUBLIC, errors=[errors.TOO_MANY_ATTEMPTS])
async def request_password_reset(body: models.ForgottenPassword, context: Context, users: UsersClient) -> None:
    """Request a mail with a code that resets the password.

    The response is the same whether or not the account exists. An account gets at most three mails in 15 minutes for
    requests from one network address, and ten in total.
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
    """Set a new password with a mailed code.

    The code is valid once, for one hour. All sessions end.
    """
    command = pb.ResetPasswordRequest(token=body.token, new_password=body.new_password)
    await users.write(users.stub.ResetPassword, command)
