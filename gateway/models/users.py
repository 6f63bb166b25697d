"""Requests and responses about accounts, sessions and addresses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from functions.runtime import formats
from gateway.models.common import Body, Count, Country, Moment, NextCursor, Version, identifier, line, view
from proto.shop.users.v1 import users_pb2 as pb

EMAIL = r"^[^@\s\x00-\x1f\x7f-\x9f]{1,64}@[^@\s\x00-\x1f\x7f-\x9f]{1,253}$"

Email = Annotated[
    str,
    Field(max_length=formats.MAX_EMAIL, pattern=EMAIL, description="An e-mail address.", examples=["ada@example.com"]),
]
Password = Annotated[
    str,
    Field(
        min_length=formats.MIN_PASSWORD,
        max_length=formats.MAX_PASSWORD,
        description="10 to 128 characters.",
        examples=["correct horse battery"],
    ),
]
GivenPassword = Annotated[
    str, Field(min_length=1, max_length=128, description="The password.", examples=["correct horse battery"])
]
CurrentPassword = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        description="The caller's current password; not needed within five minutes of a login.",
        examples=["correct horse battery"],
    ),
]
Name = Annotated[str, line(formats.MAX_NAME), Field(description="Shown to people.", examples=["Ada Lovelace"])]
RefreshToken = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[\x21-\x7e]+$",
        description="The latest refresh token of the session.",
        examples=["rt_4Zx0p9Qm2w"],
    ),
]
Role = TypeAliasType(
    "Role", Annotated[Literal["customer", "admin"], Field(description="Determines what an account may do.")]
)


class Register(Body):
    """A new account."""

    email: Email
    password: Password
    name: Name


DeviceToken = Annotated[
    str,
    Field(
        max_length=256,
        pattern=r"^[\x21-\x7e]*$",
        description="From the response to an earlier login from this device; browsers send it as a cookie.",
        examples=["dt_4Zx0p9Qm2w"],
    ),
]


class Login(Body):
    """The credentials of a login."""

    email: Annotated[
        str, line(formats.MAX_EMAIL), Field(description="As registered, in any case.", examples=["ada@example.com"])
    ]
    password: GivenPassword
    device_token: DeviceToken = ""


class GivenRefreshToken(Body):
    """A refresh token, to exchange for new tokens or to end its session."""

    refresh_token: RefreshToken


class UpdateUser(Body):
    """Changes of a profile; absent fields stay unchanged."""

    name: Name | None = None
    email: Email | None = None
    current_password: CurrentPassword | None = None


class ChangePassword(Body):
    """A new password."""

    current_password: GivenPassword
    new_password: Password


MailedToken = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="The code from the mail.",
        examples=["mt_Zx0p9Qm2w"],
    ),
]


class ForgottenPassword(Body):
    """The account whose password is to be reset."""

    email: Annotated[
        str, line(formats.MAX_EMAIL), Field(description="As registered, in any case.", examples=["ada@example.com"])
    ]


class ResetPassword(Body):
    """A new password, with the token that was mailed to the account's address."""

    token: MailedToken
    new_password: Password


class VerifyEmail(Body):
    """The token that was mailed to the address to verify."""

    token: MailedToken


class AnswerEmailChange(Body):
    """The token that was mailed to the new or to the former address of an account."""

    token: MailedToken


class SetRoles(Body):
    """New roles of an account."""

    roles: Annotated[list[Role], Field(min_length=1, max_length=2, examples=[["customer", "admin"]])]
    current_password: CurrentPassword | None = None


class AddressIn(Body):
    """A postal address, checked by the rules of its country."""

    name: Annotated[str, line(100), Field(description="The recipient.", examples=["Ada Lovelace"])]
    line1: Annotated[str, line(200), Field(description="Street and number.", examples=["Hauptstr. 1"])]
    line2: Annotated[str, line(200, 0), Field(description="Flat, floor.", examples=["2nd floor"])] = ""
    city: Annotated[
        str,
        line(100, 0),
        Field(description="Town; optional if the country's addresses have none.", examples=["Berlin"]),
    ] = ""
    state: Annotated[
        str,
        line(100, 0),
        Field(
            description="State, province, prefecture or emirate, if the country's addresses have one. If it is absent,"
            " it is filled in when the postal code or the city determines it.",
            examples=[""],
        ),
    ] = ""
    postal_code: Annotated[
        str,
        line(20, 0),
        Field(description="In the country's format; optional if the country has none.", examples=["10115"]),
    ] = ""
    country: Country


class User(TypedDict):
    """An account."""

    id: Annotated[str, identifier("usr", "The account")]
    email: Annotated[str, Field(description="Case-folded.", examples=["ada@example.com"])]
    name: Annotated[str, Field(description="Shown to people.", examples=["Ada Lovelace"])]
    roles: Annotated[list[Role], Field(examples=[["customer"]])]
    email_deliverable: Annotated[bool, Field(description="False after a hard bounce.", examples=[True])]
    email_verified: Annotated[bool, Field(description="Whether the address is verified.", examples=[False])]
    pending_email: Annotated[
        str | None,
        Field(
            description="New address that is not confirmed yet; null in lists.",
            examples=["countess@example.com"],
        ),
    ]
    created_at: Moment
    updated_at: Moment
    version: Version


class UserPage(TypedDict):
    """Accounts, newest first."""

    items: list[User]
    next_cursor: NextCursor


class Session(TypedDict):
    """The tokens of a session."""

    access_token: Annotated[
        str, Field(description="A JWT, for `Authorization: Bearer`.", examples=["eyJhbGciOiJFZERTQSJ9.e30.c2ln"])
    ]
    refresh_token: Annotated[str, Field(description="Opaque; valid for one use.", examples=["rt_4Zx0p9Qm2w"])]
    token_type: Annotated[str, Field(description="Always `Bearer`.", examples=["Bearer"])]
    expires_in: Annotated[Count, Field(description="Lifetime of the access token in seconds.", examples=[900])]
    user_id: Annotated[str, identifier("usr", "The account of the session")]
    device_token: Annotated[
        str | None,
        Field(
            description="Only in the response to a login. Send it with the next login from this device, so that failed"
            " logins of others do not block it.",
            examples=["dt_4Zx0p9Qm2w"],
        ),
    ]


class Address(TypedDict):
    """A postal address of a person."""

    id: Annotated[str, identifier("adr", "The address")]
    name: Annotated[str, Field(description="The recipient.", examples=["Ada Lovelace"])]
    line1: Annotated[str, Field(description="Street and number.", examples=["Hauptstr. 1"])]
    line2: Annotated[str, Field(description="Flat, floor; may be empty.", examples=["2nd floor"])]
    city: Annotated[str, Field(description="Town; may be empty.", examples=["Berlin"])]
    state: Annotated[str, Field(description="Administrative area; may be empty.", examples=[""])]
    postal_code: Annotated[str, Field(description="In the country's format; may be empty.", examples=["10115"])]
    country: Country


class AddressPage(TypedDict):
    """A person's addresses, oldest first. There are at most 20, so there is one page."""

    items: list[Address]
    next_cursor: NextCursor


class Key(TypedDict):
    """A public key (RFC 8037)."""

    kty: Annotated[str, Field(examples=["OKP"])]
    crv: Annotated[str, Field(examples=["Ed25519"])]
    kid: Annotated[str, Field(examples=["2030-01-01-1"])]
    x: Annotated[str, Field(examples=["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"])]


class KeySet(TypedDict):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[Key]


def user(message: pb.User) -> User:
    """Return an account as the API shows it."""
    return view(User, message, pending_email=message.pending_email or None)


def session(message: pb.Session) -> Session:
    """Return tokens as the API shows them."""
    return view(Session, message, token_type="Bearer", device_token=message.device_token or None)  # noqa: S106 - no password
