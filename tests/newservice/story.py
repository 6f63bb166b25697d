"""`python -m tests.newservice.story inventory`: the platform with a new service, as a person uses it."""

from __future__ import annotations

import asyncio
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc.aio

from functions.runtime.tests.support import bearer
from functions.template.names import Names, entity_of
from knative.local.demo.shop import Shop
from knative.local.demo.stories import eventually
from tests.e2e.platform import LocalPlatform


async def told(platform: LocalPlatform, name: str) -> None:
    """Somebody creates and reads by gRPC with a token of the platform's, then leaves."""
    entity = str(Names(name, entity_of(name), "", 0).answers()["Entity"])
    pb: Any = importlib.import_module(f"proto.shop.{name}.v1.{name}_pb2")
    stubs: Any = importlib.import_module(f"proto.shop.{name}.v1.{name}_pb2_grpc")
    ready = next(line for line in platform.log(name) if line.get("event") == "ready")
    address = f"127.0.0.1:{ready['grpc_port']}"
    async with Shop(platform.base_url) as shop, grpc.aio.insecure_channel(address) as channel:
        person = await shop.register()
        stub = getattr(stubs, f"{name.capitalize()}ServiceStub")(channel)
        mine = bearer(person.tokens["access_token"])
        created = await getattr(stub, f"Create{entity}")(
            getattr(pb, f"Create{entity}Request")(name="The first"), metadata=mine
        )
        made = getattr(created, entity_of(name))
        wanted = getattr(pb, f"Get{entity}Request")(**{f"{entity_of(name)}_id": made.id})
        read = getattr(stub, f"Get{entity}")
        assert getattr(await read(wanted, metadata=mine), entity_of(name)) == made
        await shop.call("DELETE", "/v1/users/me", who=person)

        async def gone() -> bool:
            try:
                await read(wanted, metadata=mine)
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.NOT_FOUND
            return False

        await eventually(gone, "the event of the deleted account arrived")


def main(name: str) -> None:
    """Raises AssertionError where the story ends differently."""
    with tempfile.TemporaryDirectory() as folder:
        platform = LocalPlatform(Path(folder) / "data")
        platform.start()
        try:
            asyncio.run(told(platform, name))
        finally:
            assert platform.stop() == 0, platform.output()


if __name__ == "__main__":
    main(sys.argv[1])
