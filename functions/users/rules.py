"""What counts as an e-mail address, a password, a name: pure rules, no state."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from functions.runtime.errors import ServiceError, invalid
from functions.runtime.formats import MAX_EMAIL, MAX_NAME, MAX_PASSWORD, MIN_PASSWORD
from functions.runtime.text import TextError, clean_line

if TYPE_CHECKING:
    from email_validator import ValidatedEmail

FOLDING = 2
"""The version of `normal_email`: the digests of accounts made by an earlier one are found by `earlier_email`."""
# Normalisation may shorten a text; beyond this it is not even looked at.
MAX_RAW_PASSWORD = 512

# The dot-atom of RFC 5322 and the host names of RFC 1123 with at least two labels. Quoted local parts and
# address literals are legal and, in practice, mistakes.
_LOCAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?:[a-z]{2,63}|xn--[a-z0-9-]{1,59})")

# The most frequent passwords of published breaches that are long enough to pass the rule of length.
_COMMON_WORDS = """
    0000000000 0123456789 0987654321 1111111111 1122334455 123123123123 1234512345 123456789a 123456789q
    1234567890 12345678910 1234567891 123456789012 1234567899 12345qwert 123qwe123qwe 147258369a 1472583690
    1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx3edc 1qazxsw23edc 741852963a 7894561230 9876543210 987654321a a123456789
    a1b2c3d4e5 aa12345678 abc1234567 abcd123456 abcd1234567 abcdefghij admin12345 admin123456 administrator
    asdf123456 asdfasdfasdf asdfghjkl1 asdfghjkl; baseball123 basketball bismillah1 changeme123 changeme1234
    charlie123 chocolate1 computer123 correcthorsebatterystaple dragon12345 football123 football12 google12345
    hello12345 iloveyou12 iloveyou123 iloveyou1234 internet123 letmein123 letmein1234 liverpool1 liverpool123
    loveme1234 manchester master12345 michael123 monkey12345 mypassword p@ssw0rd123 p@ssword123 passw0rd123
    passw0rd1234 password!! password01 password10 password11 password12 password123 password1234 password12345
    password123456 password123! password1! passwordpassword pokemon123 princess12 princess123 q1w2e3r4t5
    q1w2e3r4t5y6 qazwsx1234 qazwsxedc123 qazwsxedcrfv qwe123qwe123 qwer123456 qwerty1234 qwerty12345
    qwerty123456 qwerty1234567 qwertyqwerty qwertyuiop qwertyuiop1 qwertyuiop123 samsung123 secret1234
    starwars123 sunshine12 sunshine123 superman123 test123456 testtest123 trustno1234 unknown123 welcome123
    welcome1234 welcome12345 whatever123 zaq12wsxcde3 zxcvbnm123 zxcvbnm1234 zxcvbnmzxcvbnm
"""
_COMMON = frozenset(_COMMON_WORDS.split())


def normal_email(text: str) -> str:
    """Return the one form in which an address is kept and compared: ASCII in lower case, the domain by IDNA 2008.

    The local part must be ASCII, and only its case is folded: mail servers may tell case apart, but none that people
    use does; dots and `+tags` are kept. The domain is mapped by UTS #46 without transitional processing, so that
    `fussball` and `fußball` stay two. See docs/decisions/0004-identity-folding.md.

    Raises INVALID_ARGUMENT naming the field, never the address.
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
    """Return `validate_email`, which then takes `.local` and `.test` too: whether mail arrives is shown by a code."""
    import email_validator  # 50 ms of cold start, needed first here

    email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()  # the library's documented way
    return email_validator.validate_email


def earlier_email(text: str) -> str | None:
    """Return the form that accounts were kept under before FOLDING 2; None where it is none, or the same as today.

    It folded by NFKC and IDNA 2003, which makes `fussball` of `fußball`: another domain.
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
        return None if email == normal_email(text) else email
    except ServiceError:
        return email


def _is_address(local: str, domain: str) -> bool:
    fits = len(local) <= 64 and len(local) + 1 + len(domain) <= MAX_EMAIL
    return bool(fits and _LOCAL.fullmatch(local) and _DOMAIN.fullmatch(domain))


def _not_an_email() -> ServiceError:
    return invalid(
        "The e-mail address is not valid.", ("email", "must be an e-mail address like name@example.com")
    )


def normal_password(text: str) -> str:
    """The form of a password that is hashed: NFKC, so that it is the same from every keyboard."""
    return unicodedata.normalize("NFKC", text[: MAX_RAW_PASSWORD + 1])


def check_password(text: str, email: str, field: str = "password") -> None:
    """Raises INVALID_ARGUMENT (WEAK_PASSWORD) for what is too short, too long or too easy to guess."""
    password = normal_password(text)
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD or len(text) > MAX_RAW_PASSWORD:
        raise _weak(field, f"must have {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    folded = password.casefold()
    if folded in _COMMON or len(set(folded)) < 4:
        raise _weak(field, "is among the passwords that are tried first; choose another")
    if folded in (email, email.partition("@")[0]):
        raise _weak(field, "must not be the e-mail address")


def _weak(field: str, message: str) -> ServiceError:
    return invalid("The password cannot be used.", (field, message), reason="WEAK_PASSWORD")


def clean_name(text: str) -> str:
    """Return the name that is shown to people, as a clean line; raises INVALID_ARGUMENT naming the field."""
    try:
        return clean_line(text, MAX_NAME)
    except TextError as error:
        raise invalid("The name is not valid.", ("name", str(error))) from None
