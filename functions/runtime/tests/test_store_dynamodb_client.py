"""Reaching DynamoDB: addresses, tables, keys, and databases that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from socket import create_server

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.factories import open_store
from functions.runtime.settings import RuntimeSettings, SettingsError, load
from functions.runtime.store.dynamodb.client import Address, Connection, dynamodb_url, make_client
from functions.runtime.store.dynamodb.layout import last_place, place, placed
from functions.runtime.store.dynamodb.store import DynamoDBStore
from functions.runtime.store.dynamodb.tables import TEMPLATE, definition
from functions.runtime.tests.store_kinds import MAPPINGS, Counter, adding

_pairs = st.tuples(st.text('\x00 !"/aZ0é\uffff\U0001f600', max_size=4), st.text("ab_0", min_size=1, max_size=3))


@pytest.fixture
def credentials(moto: str) -> str:
    """Whatever they are: having them is enough."""
    return moto


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of somebody who takes connections and never answers."""
    with create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@given(st.lists(_pairs, max_size=6))
def test_places_sort_as_their_pairs_do(pairs: list[tuple[str, str]]) -> None:
    def in_utf8(text: str) -> bytes:  # as DynamoDB compares
        return text.encode()

    assert sorted((place(*pair) for pair in pairs), key=in_utf8) == [place(*pair) for pair in sorted(pairs)]


@given(_pairs, st.text("\x00 !ab", max_size=3))
def test_a_place_can_be_read_back_and_lies_before_its_bound(pair: tuple[str, str], until: str) -> None:
    assert placed(place(*pair)) == pair
    assert (place(*pair) < last_place(until)) == (pair[0] <= until)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("dynamodb:", Address("shop-", None, None)),
        ("dynamodb://", Address("shop-", None, None)),
        ("dynamodb://Dev_", Address("Dev_", None, None)),
        (
            "dynamodb://a-?endpoint=http://127.0.0.1:8000&region=eu-central-1",
            Address("a-", "http://127.0.0.1:8000", "eu-central-1"),
        ),
        ("dynamodb:?endpoint=https://alternator:8043/", Address("shop-", "https://alternator:8043/", None)),
    ],
)
def test_an_address_names_prefix_endpoint_and_region(url: str, address: Address) -> None:
    assert dynamodb_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb://a/b",
        "dynamodb://a b",
        "dynamodb://a?endpoint=",
        "dynamodb://a?table=t",
        "dynamodb:x",
        "x://a",
    ],
)
def test_a_wrong_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="STORE_URL"):
        dynamodb_url(url)


def test_the_region_is_the_given_one_or_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    nearby = Connection("http://127.0.0.1:1")
    assert make_client(nearby).meta.region_name == "us-east-1"

    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert make_client(Connection()).meta.region_name == "eu-north-1"
    assert make_client(Connection(region="eu-central-1")).meta.region_name == "eu-central-1"


async def test_a_store_makes_its_table_in_development_and_only_there(moto: str) -> None:
    client = make_client(Connection(moto))
    for env, made in (("production", False), ("development", True)):
        settings = load(RuntimeSettings, {"SHOP_ENV": env, "STORE_URL": f"dynamodb://{env}-?endpoint={moto}"})
        store = open_store(settings, "orders", MAPPINGS, ManualClock())
        if made:
            await store.ping()
            await store.update(Counter, "c", adding())
        else:
            with pytest.raises(ServiceError) as caught:
                await store.ping()
            assert caught.value.code is Code.UNAVAILABLE
        await store.close()
        assert (f"{env}-orders" in client.list_tables()["TableNames"]) is made


@pytest.mark.parametrize("where", ["nobody", "silent"])
async def test_a_database_that_does_not_answer_is_unavailable_in_time(
    where: str, credentials: str, request: pytest.FixtureRequest
) -> None:
    connection = Connection(
        request.getfixturevalue(where), connect_timeout=0.1, read_timeout=0.1, timeout=1, first_pause=0.01
    )
    store = DynamoDBStore("t", MAPPINGS, ManualClock(), connection)
    started = time.monotonic()

    for use in (store.ping(), store.get(Counter, "c"), store.update(Counter, "c", adding())):
        with pytest.raises(ServiceError) as caught:
            await use
        assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "STORE_UNAVAILABLE")

    assert time.monotonic() - started < 3 * 1.5 + 5  # the first call also loads boto3
    await store.close()


def test_making_all_tables_twice_is_as_good_as_once(moto: str) -> None:
    environment = {**os.environ, "STORE_URL": f"dynamodb://all-?endpoint={moto}"}
    command = [sys.executable, "-m", "functions.runtime.store.dynamodb.tables"]
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout for _ in range(2)
    )

    names, _ = definition()
    assert first.splitlines() == [f"all-{name}: created" for name in names]
    assert second.splitlines() == [f"all-{name}: is there" for name in names]
    client = make_client(Connection(moto))
    for name in names:
        table = client.describe_table(TableName=f"all-{name}")["Table"]
        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        lives = client.describe_time_to_live(TableName=f"all-{name}")["TimeToLiveDescription"]
        assert lives == {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}


def test_the_tables_cannot_be_made_without_an_address_for_them() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "functions.runtime.store.dynamodb.tables"],
        env={**os.environ, "STORE_URL": "sqlite:///x"}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (1, "")
    assert "STORE_URL" in done.stderr


def test_production_keeps_its_tables_whatever_happens_to_the_stack() -> None:
    names, properties = definition()
    (resource,) = json.loads(TEMPLATE.read_text())["Resources"]["Fn::ForEach::Tables"][2].values()

    domains = [store.parent.name for store in Path(__file__).parents[2].glob("*/store.py")]
    assert sorted(names) == sorted([*domains, "payments-ledger"])
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert properties["DeletionProtectionEnabled"] is True
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_the_other_stores_do_not_pay_for_boto3() -> None:
    modules = "functions.runtime.factories, functions.runtime.store.sqlite.store"
    code = f"import sys, {modules}; print('botocore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
