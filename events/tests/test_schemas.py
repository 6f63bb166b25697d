"""The published schemas are those of the catalogue, and say what the payloads say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from events.catalog import CATALOG, SUBSCRIBERS, Money, OrderPlaced, Payload, StockRejected
from events.publisher import dataschema
from events.schemas import FOLDER, schema_files
from events.schemas.__main__ import breaks, committed, write
from events.schemas.asyncapi import document

ORDER: dict[str, Any] = {
    "order_id": "ord_" + "0" * 32,
    "user_id": "usr_" + "0" * 32,
    "lines": [
        {"product_id": "prd_" + "0" * 32, "quantity": 2, "unit_price": {"amount": 5, "currency": "EUR"}},
    ],
    "total": {"amount": 10, "currency": "EUR"},
}


def accepted_by_schema(data: Any) -> bool:
    schema = json.loads(schema_files()["shop.order.placed.v1.json"])
    return not list(jsonschema.Draft202012Validator(schema).iter_errors(data))


def accepted_by_payload(data: Any) -> bool:
    try:
        msgspec.json.decode(json.dumps(data), type=OrderPlaced)
    except msgspec.ValidationError:
        return False
    return True


def test_the_committed_files_are_those_of_the_catalogue() -> None:
    made = schema_files() | {"asyncapi.yaml": document()}
    found = {path.name: path.read_text() for path in [*FOLDER.glob("*.json"), *FOLDER.glob("*.yaml")]}

    assert list(breaks({name: text for name, text in found.items() if name.endswith(".json")}, made)) == []
    assert found == made, "run `make schemas`"


@pytest.mark.parametrize("payload", CATALOG.values())
def test_every_schema_is_valid_and_named_as_its_events_say(payload: type[Payload]) -> None:
    schema = json.loads(schema_files()[f"{payload.TYPE}.json"])

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == dataschema(payload.TYPE)
    assert schema["description"]


@pytest.mark.parametrize(
    ("valid", "change"),
    [
        (True, {}),
        (True, {"more": "later"}),
        (False, {"order_id": "ORD"}),
        (False, {"lines": []}),
        (False, {"lines": [ORDER["lines"][0] | {"quantity": 0}]}),
        (False, {"total": {"amount": -1, "currency": "EUR"}}),
        (False, {"total": {"amount": 1, "currency": "euro"}}),
        (False, {"total": None}),
    ],
)
def test_a_schema_accepts_what_its_payload_accepts(valid: bool, change: dict[str, Any]) -> None:
    data = ORDER | change

    assert (accepted_by_schema(data), accepted_by_payload(data)) == (valid, valid)


def test_asyncapi_names_every_sender_and_receiver() -> None:
    api = yaml.safe_load(document())
    operations = {
        (name.split(".")[0], operation["action"], operation["channel"]["$ref"].rpartition("/")[2])
        for name, operation in api["operations"].items()
    }

    expected = {(domain, "receive", payload.__name__) for payload, domains in SUBSCRIBERS.items() for domain in domains}
    senders = {name for name in operations if name[1] == "send"}
    assert operations - senders == expected
    assert {name for _, _, name in senders} == {payload.__name__ for payload in SUBSCRIBERS} - {"SweepDue"}
    assert ("orders", "send", "OrderPlaced") in operations


def test_every_reference_in_asyncapi_leads_somewhere() -> None:
    api = yaml.safe_load(document())

    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if "$ref" in part else []
            return own + [found for value in part.values() for found in references(value)]
        return [found for value in part for found in references(value)] if isinstance(part, list) else []

    found = references(api)
    assert found
    for reference in found:
        if reference.startswith("./"):
            assert (FOLDER / reference).is_file()
            continue
        at = api
        for name in reference.removeprefix("#/").split("/"):
            at = at[name]


def test_generating_twice_gives_the_same(tmp_path: Path) -> None:
    assert write(tmp_path) == []
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert write(tmp_path) == []

    assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(first) == len(CATALOG) + 1


def test_generating_refuses_to_break_what_is_published(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / f"{StockRejected.TYPE}.json"
    published = json.loads(path.read_text())
    published["properties"]["colour"] = {"type": "string"}
    path.write_text(json.dumps(published))
    gone = tmp_path / "shop.order.forgotten.v1.json"
    gone.write_text("{}")

    assert write(tmp_path) == [
        "shop.order.forgotten.v1.json: the type is gone, but events of it may be under way",
        f"{StockRejected.TYPE}.json: $.colour: is gone, but receivers read it",
    ]
    assert json.loads(path.read_text()) == published


def test_a_revision_of_git_can_be_compared_with(tmp_path: Path) -> None:
    def git(*args: str) -> None:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        subprocess.run(["git", *identity, *args], cwd=tmp_path, check=True, capture_output=True)

    folder = tmp_path / "events" / "schemas"
    folder.mkdir(parents=True)
    write(folder)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "schemas")

    assert committed("HEAD", folder) == schema_files()
    with pytest.raises(subprocess.CalledProcessError):
        committed("nowhere", folder)


def test_the_command_says_what_it_would_do() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "events.schemas", "--help"], check=True, capture_output=True, text=True
    )

    assert "--against" in done.stdout


def test_money_is_what_every_schema_means_by_it() -> None:
    texts = [json.loads(text).get("$defs", {}).get("Money") for text in schema_files().values()]

    assert {json.dumps(text, sort_keys=True) for text in texts if text} == {
        json.dumps(msgspec.json.schema(Money)["$defs"]["Money"], sort_keys=True)
    }


@pytest.mark.parametrize("payload", SUBSCRIBERS)
def test_every_message_has_an_example_that_fits_its_schemas(payload: type[Payload]) -> None:
    message = yaml.safe_load(document())["components"]["messages"][payload.__name__]
    (example,) = message["examples"]
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(message["headers"], format_checker=checker).validate(example["headers"])
    assert example["headers"].keys() == message["headers"]["properties"].keys()
    schema = json.loads(schema_files()[f"{payload.TYPE}.json"])
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(example["payload"])
    msgspec.convert(example["payload"], payload)  # as the services do


def test_the_document_says_where_the_broker_is() -> None:
    servers = yaml.safe_load(document())["servers"]
    assert {server["protocol"] for server in servers.values()} == {"http"}
    assert {server["pathname"] for server in servers.values()} == {"/shop/default"}
