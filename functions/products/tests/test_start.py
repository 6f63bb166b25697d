from __future__ import annotations

import json
import subprocess
import sys

import pytest

from events.catalog import CATALOG, subscriptions_of
from functions.products.settings import Settings
from functions.products.tests.shop import Shop
from functions.runtime.settings import SettingsError, load

HEAVY = ["pydantic", "boto3", "aiohttp", "jinja2", "hypothesis", "opentelemetry.sdk", "jwt"]


def test_the_entry_point_loads_nothing_heavy() -> None:
    code = f"import functions.products.main, json, sys; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("minutes", ["15", "0", "x"])
def test_a_reservation_must_outlast_an_order_that_does_not_move(minutes: str) -> None:
    with pytest.raises(SettingsError, match="RESERVATION_MINUTES"):
        load(Settings, {"RESERVATION_MINUTES": minutes})


def test_products_reacts_to_what_the_catalogue_of_events_says(shop: Shop) -> None:
    handled = {payload.TYPE for payload in shop.handlers}

    assert handled == subscriptions_of("products")
    assert handled <= CATALOG.keys()
