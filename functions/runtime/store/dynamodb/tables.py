"""The command that creates the DynamoDB tables that STORE_URL names.

Run it by `make tables` or `python -m functions.runtime.store.dynamodb.tables`. The tables are defined in tables.json,
the CloudFormation template that production deploys.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from functions.runtime.settings import RuntimeSettings, SettingsError, load
from functions.runtime.store.dynamodb.client import Connection, dynamodb_url, make_client

TEMPLATE = Path(__file__).with_name("tables.json")
_AT_CREATION = ("AttributeDefinitions", "KeySchema", "BillingMode", "GlobalSecondaryIndexes")

_log = logging.getLogger("shop.store")


def definition() -> tuple[list[str], dict[str, Any]]:
    """Return the names of the domains and the properties of a table, both from the template."""
    _, names, resources = json.loads(TEMPLATE.read_text())["Resources"]["Fn::ForEach::Tables"]
    (table,) = resources.values()
    return names, table["Properties"]


def create(client: Any, table: str) -> bool:
    """Create one table from the template, and wait until it is active. Returns False if it existed."""
    _, properties = definition()
    chosen = {name: properties[name] for name in _AT_CREATION}
    try:
        client.create_table(TableName=table, **chosen)
        made = True
    except client.exceptions.ResourceInUseException:
        made = False
    client.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    lives = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    if lives.get("TimeToLiveStatus") not in {"ENABLED", "ENABLING"}:
        client.update_time_to_live(TableName=table, TimeToLiveSpecification=properties["TimeToLiveSpecification"])
    if made:
        _log.info("table_created", extra={"table": table})
    return made


def main() -> int:
    """Create missing tables. Returns 0 if all tables exist; otherwise prints the reason and returns 1."""
    from botocore.exceptions import BotoCoreError, ClientError  # imported only if boto3 is used

    try:
        address = dynamodb_url(load(RuntimeSettings, os.environ).store_url)
        client = make_client(Connection(address.endpoint, address.region))
        for name in definition()[0]:
            made = create(client, address.prefix + name)
            sys.stdout.write(f"{address.prefix}{name}: {'created' if made else 'is there'}\n")
    except (SettingsError, BotoCoreError, ClientError) as error:
        sys.stderr.write(f"The tables cannot be made: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
