"""Settings of the users service."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """Settings that only users reads. Bounds hold for the environment; tests build cheaper settings directly."""

    SECRETS = (*RuntimeSettings.SECRETS, "admin_password")

    admin_email: str = ""
    """The e-mail address of the first administrator, who is created if there has never been one. `make up` sets it."""
    admin_password: str = ""
    """The password of the first administrator. Remove it once the administrator exists: every later start logs a
    warning while it is set.
    """
    argon2_time_cost: Annotated[int, Meta(ge=2, le=20)] = 2
    """Passes of argon2id. The default is OWASP's minimum for one lane."""
    argon2_memory_kib: Annotated[int, Meta(ge=19_456, le=1_048_576)] = 19_456
    """Memory for one hash, in KiB."""
    hash_concurrency: Annotated[int, Meta(ge=1, le=64)] = 2
    """Maximum number of concurrent hashes. Each uses one core and ARGON2_MEMORY_KIB."""
    hash_queue: Annotated[int, Meta(ge=0, le=10_000)] = 100
    """Maximum number of hashes that wait (about 1.5 s at the default cost)."""
    registration: Literal["private", "open"] = "private"
    """`private`: a registration with an address that already has an account gets the same response as any other, and
    the owner gets a mail. `open`: it gets 409 EMAIL_TAKEN.
    """
    login_failures_per_address: Annotated[int, Meta(ge=5)] = 100
    """Maximum number of failed logins in 15 minutes from one network address."""
    login_failures_per_account: Annotated[int, Meta(ge=5, le=1000)] = 50
    """Maximum number of failed logins in 15 minutes to one account, from all network addresses. Beyond it, only known
    devices may log in.
    """
    registrations_per_address: Annotated[int, Meta(ge=1)] = 100
    """Maximum number of registrations in 15 minutes from one network address. Beyond it: 429 TOO_MANY_REGISTRATIONS."""
    registrations_in_all: Annotated[int, Meta(ge=1)] = 3000
    """Maximum number of registrations in 15 minutes from all network addresses."""
    client_address_header: str = ""
    """The header that the ingress sets to the address of a gRPC client; it overwrites any value from the client. Empty:
    none.
    """
