"""E-mail addresses: the normal form in which they are stored and compared, and the keys derived from it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING

from functions.runtime.errors import ServiceError, invalid
from functions.runtime.formats import MAX_EMAIL

if TYPE_CHECKING:
    from email_validator import ValidatedEmail

FOLDING = 2
"""The version of the rules of `normalise_email`. `legacy_email` finds accounts that version 1 stored differently."""

# The dot-atom of RFC 5322, and host names of RFC 1123 with at least two labels. Quoted local parts and address literals
# are legal, but in practice they are mistakes.
_LOCAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?:[a-z]{2,63}|xn--[a-z0-9-]{1,59})")


def normalise_email(text: str) -> str:
    """Return the address in ASCII and lower case, with the domain encoded by IDNA 2008.

    The local part must be ASCII. Only its case is folded: mail servers may distinguish case, but none in use does so.
    Dots and `+tags` are kept. The domain is mapped by UTS #46 without transitional processing, so that `fussball` and
    `fußball` stay two domains. See docs/decisions/0004-identity-folding.md.

    Raises INVALID_ARGUMENT with the field's name; the error never contains the address.
    """
    from email_validator import EmailNotValidError

    given = text.strip() if len(text) <= MAX_EMAIL else ""
    try:
        valid = _validator()(given, allow_smtputf8=False, check_deliverability=False)
    except EmailNotValidError:
        raise _not_an_email() from None
    local, domain = valid.local_part.lower(), (valid.ascii_domain or "").lower()
    if not _is_address(local, domain):
        raise _not_an_email()
    return f"{local}@{domain}"


@cache
def _validator() -> Callable[..., ValidatedEmail]:
    """Return `validate_email`, configured to accept special-use domains such as `.local` and `.test`.

    Whether an address works is not checked here: a mailed code shows it.
    """
    import email_validator  # imported on first use: takes 50 ms of a cold start

    email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()  # as the library documents it
    return email_validator.validate_email


def legacy_email(text: str) -> str | None:
    """Return `text` in the form that version 1 of the rules stored (see FOLDING).

    Returns None if that form is not an address or equals the current form. Version 1 used NFKC and IDNA 2003, which
    turns `fußball` into `fussball`, another domain.
    """
    local, _, domain = unicodedata.normalize("NFKC", text[: MAX_EMAIL + 1].strip()).rpartition("@")
    local, domain = local.lower(), domain.casefold()
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    if not _is_address(local, domain) or len(text) > MAX_EMAIL:
        return None
    email = f"{local}@{domain}"
    try:
        return None if email == normalise_email(text) else email
    except ServiceError:
        return email


def email_key(email: str) -> str:
    """Return the key of a normalised address: its SHA-256, because keys appear where addresses must not."""
    return sha256(email.encode()).hexdigest()


def legacy_email_key(text: str) -> str | None:
    """Return the key of the address that `legacy_email` returns, or None if that returns None."""
    legacy = legacy_email(text)
    return email_key(legacy) if legacy else None


def account_key(text: str) -> str:
    """Return the account key for `text`, the e-mail address that a user entered.

    It is computed from the text alone, so it exists for unknown addresses and for text that is not an address.
    """
    try:
        return email_key(normalise_email(text))
    except ServiceError:
        # Truncated, because no address is longer. Prefixed, so that the key never equals that of an address.
        return email_key("\0" + text[:MAX_EMAIL].casefold())


def _is_address(local: str, domain: str) -> bool:
    fits = len(local) <= 64 and len(local) + 1 + len(domain) <= MAX_EMAIL
    return bool(fits and _LOCAL.fullmatch(local) and _DOMAIN.fullmatch(domain))


def _not_an_email() -> ServiceError:
    return invalid("The e-mail address is not valid.", ("email", "must be an e-mail address like name@example.com"))
