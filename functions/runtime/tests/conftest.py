"""Databases that the tests of the stores need, one of each for a whole run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import environ

import pytest

from functions.runtime.store.dynamodb.local import CREDENTIALS, DynamoDBLocal
from functions.runtime.store.port import NotAvailable
from functions.runtime.store.postgres.local import PostgresServer
from functions.runtime.store.postgres.migrate import migrated


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of moto's DynamoDB."""
    from moto.server import ThreadedMotoServer  # half a second, which only those pay who use it

    with _credentials():
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture(scope="session")
def dynamodb_local() -> Iterator[str]:
    """The address of a DynamoDB Local; without Java or Maven its tests are skipped."""
    try:
        with _credentials(), DynamoDBLocal() as database:
            yield database.url
    except NotAvailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL with the schema `test`; without PostgreSQL's programs its tests are skipped."""
    try:
        with PostgresServer() as server:
            migrated(server, ["test"])
            yield server
    except NotAvailable as error:
        pytest.skip(str(error))


@contextmanager
def _credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(environ):
            if name.startswith("AWS_"):  # nothing here may reach a real account
                patch.delenv(name)
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield
