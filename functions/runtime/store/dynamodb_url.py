"""STORE_URL of DynamoDB."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from functions.runtime.settings import SettingsError

_PREFIX = "shop-"


class Address(NamedTuple):
    """What the tables' names begin with, and where they are; None: where boto3's own settings say."""

    prefix: str
    endpoint: str | None
    region: str | None


def dynamodb_url(url: str) -> Address:
    """`dynamodb:` or `dynamodb://prefix?endpoint=http://host:port&region=eu-central-1`; raises SettingsError."""
    parts = urlsplit(url)
    given = parse_qs(parts.query, keep_blank_values=True)
    prefix = parts.netloc or _PREFIX
    wrong = (
        parts.scheme != "dynamodb"
        or parts.path
        or parts.fragment
        or not re.fullmatch(r"[A-Za-z0-9_.-]+", prefix)
        or not given.keys() <= {"endpoint", "region"}
        or any(len(values) != 1 or not values[0] for values in given.values())
    )
    if wrong:
        raise SettingsError("STORE_URL: must be dynamodb://prefix?endpoint=http://host:port&region=name")
    return Address(prefix, given.get("endpoint", [None])[0], given.get("region", [None])[0])
