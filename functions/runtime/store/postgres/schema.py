"""The schema of a store on PostgreSQL: its version, and the names of its schema and role."""

from __future__ import annotations

from functions.runtime.settings import SettingsError

VERSION = 2
"""The schema that this release needs.

The table `store` contains the schema's version and, in `serves`, the lowest VERSION of the releases that the schema
still supports. A release runs if `serves` <= VERSION <= the schema's version.
"""


class SchemaError(SettingsError):
    """The schema cannot be used by this release. The message says what to do."""


def schema_of(store: str) -> str:
    """Return the name of a store's schema: the store's name, with underscores."""
    return store.replace("-", "_")


def role_of(store: str) -> str:
    """Return the role of a store's domain. All stores of a domain (such as `payments-ledger`) share one role."""
    return f"shop_{store.partition('-')[0]}"


def check(schema: str, version: int, serves: int) -> None:
    """Raise SchemaError unless this release can use a schema of this version."""
    if serves > VERSION:
        raise SchemaError(
            f"STORE_URL: the schema {schema} has version {version} and serves releases from version {serves} on, this "
            f"release knows {VERSION}: use the later release"
        )
    if version < VERSION:
        raise SchemaError(
            f"STORE_URL: the schema {schema} has version {version}, this release needs {VERSION}: run `make migrate`"
        )
