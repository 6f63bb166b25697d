"""What the users service reads from the environment."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """The bounds hold for what comes from the environment; tests build cheaper ones directly."""

    SECRETS = (*RuntimeSettings.SECRETS, "admin_password")

    # The first administrator, made at start if both are given and nobody has this e-mail.
    admin_email: str = ""
    admin_password: str = ""
    # argon2id: passes, and KiB of memory; OWASP's least for one lane.
    argon2_time_cost: Annotated[int, Meta(ge=2, le=20)] = 2
    argon2_memory_kib: Annotated[int, Meta(ge=19_456, le=1_048_576)] = 19_456
    # Hashes at once, each taking a core and its memory; and how many more may wait (some 1.5 s at the default
    # cost).
    hash_concurrency: Annotated[int, Meta(ge=1, le=64)] = 2
    hash_queue: Annotated[int, Meta(ge=0, le=10_000)] = 100
    # What somebody learns who registers with an address that has an account: nothing, while its owner gets a mail
    # (private), or that it has one (open).
    registration: Literal["private", "open"] = "private"
    # Failed logins in 15 minutes from one network address, behind which there may be many people.
    login_failures_per_address: Annotated[int, Meta(ge=5)] = 100
    # Failed logins in 15 minutes at one account, from all network addresses together, until only devices that logged in
    # to it before are let in.
    login_failures_per_account: Annotated[int, Meta(ge=5, le=1000)] = 50
    # Registrations in 15 minutes from one network address, and in all.
    registrations_per_address: Annotated[int, Meta(ge=1)] = 100
    registrations_in_all: Annotated[int, Meta(ge=1)] = 3000
    # A header that the ingress overwrites with a gRPC client's address, so that it cannot claim another. Empty: none.
    client_address_header: str = ""
