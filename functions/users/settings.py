"""Settings of the users service."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """Settings that only users reads. Bounds hold for the environment; tests build cheaper settings directly."""

    SECRETS = (*RuntimeSettings.SECRETS, "admin_password")

    admin_email: str = ""
    """The first administrator, created if there has never been one. `make up` sets it."""
    admin_password: str = ""
    """Remove it once the administrator exists: each later start warns while it is set."""
    argon2_time_cost: Annotated[int, Meta(ge=2, le=20)] = 2
    """Passes of argon2id. The default is OWASP's least for one lane."""
    argon2_memory_kib: Annotated[int, Meta(ge=19_456, le=1_048_576)] = 19_456
    """KiB of memory for one hash."""
    hash_concurrency: Annotated[int, Meta(ge=1, le=64)] = 2
    """Hashes at once. Each takes a core and its memory."""
    hash_queue: Annotated[int, Meta(ge=0, le=10_000)] = 100
    """Hashes that may wait (about 1.5 s at the default cost)."""
    registration: Literal["private", "open"] = "private"
    """`private`: registering with an address that has an account gets the same answer as with a new one, and its
    owner gets a mail. `open`: 409 EMAIL_TAKEN."""
    login_failures_per_address: Annotated[int, Meta(ge=5)] = 100
    """Failed logins in 15 minutes from one network address."""
    login_failures_per_account: Annotated[int, Meta(ge=5, le=1000)] = 50
    """Failed logins in 15 minutes to one account, from all network addresses; beyond it only known devices may log
    in."""
    registrations_per_address: Annotated[int, Meta(ge=1)] = 100
    """Registrations in 15 minutes from one network address; then 429 TOO_MANY_REGISTRATIONS."""
    registrations_in_all: Annotated[int, Meta(ge=1)] = 3000
    """Registrations in 15 minutes in all."""
    client_address_header: str = ""
    """The header that the ingress overwrites with a gRPC client's address. Empty: there is none."""
