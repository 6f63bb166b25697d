"""The environment variables that a part reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module

from functions.runtime.settings import RuntimeSettings
from knative.local.parts import GATEWAY

# Prefixes of the variables of libraries (OpenTelemetry, boto3).
_LIBRARIES = ("OTEL_", "AWS_")


def settings_of(part: str) -> type[RuntimeSettings]:
    """Return the Settings class of a domain or of the gateway."""
    package = part if part == GATEWAY else f"functions.{part}"
    found: type[RuntimeSettings] = import_module(f"{package}.settings").Settings
    return found


def unknown(part: str, names: Iterable[str]) -> Iterator[str]:
    """Yield the names of variables that the part does not read."""
    known = {field.upper() for field in settings_of(part).__struct_fields__}
    return (name for name in names if name not in known and not name.startswith(_LIBRARIES))
