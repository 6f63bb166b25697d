"""Secrets, read from a variable or from a file such as a mounted Secret, whose path is in the variable `..._FILE`.

In production a service does not start with a secret that is an example, is easily guessed, or comes from `make up`.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path

from functions.runtime.settings import RuntimeSettings, SettingsError

log = logging.getLogger("shop.credentials")

LEAST = 16
"""The minimum length of a secret in production, in characters: 12 random bytes in base64."""
_DISTINCT = 6
# Example values from documentation, and placeholders.
_EXAMPLES = frozenset({"a-long-random-secret", "correct horse battery", "correct horse battery staple"})
_UNFILLED = re.compile(r"change.?me|example|placeholder|dummy|insecure|not.?a.?secret|^<.*>$|\$\{|\{\{", re.IGNORECASE)
_DEVELOPERS = ".data"
"""The folder into which `make up` writes generated secrets."""


def secret(settings: RuntimeSettings, name: str) -> str:
    """Return the field `name`, or, if it is empty, the content of the file that the field `{name}_file` names.

    Returns an empty string if neither field is set. Raises SettingsError, whose message shows neither field's value.
    """
    path = _path(settings, name)
    if not path:
        return str(getattr(settings, name))
    try:
        value = Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"{variable(settings, name)}: {type(error).__name__}, cannot read it") from None
    if not value:
        raise SettingsError(f"{variable(settings, name)}: is empty")
    return value


def variable(settings: RuntimeSettings, name: str) -> str:
    """Return the name of the variable that the secret `name` comes from, for error messages."""
    return f"{name.upper()}_FILE" if _path(settings, name) else name.upper()


def _path(settings: RuntimeSettings, name: str) -> str:
    """Return the path of the secret's file, or an empty string if the variable itself holds the secret."""
    return "" if getattr(settings, name) else str(getattr(settings, f"{name}_file", ""))


def refuse_weak(settings: RuntimeSettings) -> None:
    """Check all SECRETS of the settings, in production only. A missing secret is reported by the code that needs it.

    Raises SettingsError, which names the variable and never shows its value. Logs a warning for a file that other users
    of the machine may read.
    """
    if settings.shop_env != "production":
        return
    for name in settings.SECRETS:
        path, named = _path(settings, name), variable(settings, name)
        if _DEVELOPERS in Path(path).parts:
            raise SettingsError(
                f"{named}: in production it must name a secret of its own, none that `make up` made in {_DEVELOPERS}"
            )
        value = secret(settings, name)
        if value and (fault := weakness(value)):
            raise SettingsError(f"{named}: {fault}")
        if path and _others_may_read(path):
            log.warning("secret_readable_by_others", extra={"variable": named})


def weakness(value: str) -> str:
    """Return why a secret is too weak for production, or an empty string if it is not."""
    if value.casefold() in _EXAMPLES or _UNFILLED.search(value):
        return "is an example; in production it must be a secret"
    if len(value) < LEAST:
        return f"is too short: in production a secret has at least {LEAST} characters"
    if len(set(value)) < _DISTINCT:
        return "is easily guessed: in production a secret must be random"
    return ""


def _others_may_read(path: str) -> bool:
    """Return whether other users may read the file.

    A file on a read-only mount is a pod's Secret, which no other user can see.
    """
    mounted = os.statvfs(path).f_flag & os.ST_RDONLY
    return not mounted and bool(Path(path).stat().st_mode & stat.S_IROTH)
