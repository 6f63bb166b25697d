"""A whole process with its gRPC and event servers, over SQLite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc.aio
import httpx

from events.catalog import NotificationBounced
from functions.runtime.process import ServiceRunner
from functions.runtime.tests.support import FakeVerifier, bearer, keyed, posted
from functions.users.bootstrap import bootstrap
from functions.users.domain import User
from functions.users.settings import Settings
from functions.users.tests.accounts import PASSWORD
from proto.shop.users.v1 import users_pb2 as pb
from proto.shop.users.v1 import users_pb2_grpc


def cloud_event(type: str, source: str, id: str) -> dict[str, str]:  # noqa: A002 - as CloudEvents name them
    return {
        "ce-specversion": "1.0",
        "ce-type": type,
        "ce-source": source,
        "ce-id": id,
        "ce-time": "2100-01-01T00:00:00Z",
        "content-type": "application/json",
    }


async def test_a_bounce_delivered_twice_counts_once_and_a_sweep_is_accepted(tmp_path: Path) -> None:
    settings = Settings(
        # SQLAlchemy's form: four slashes and an absolute path.
        store_url=f"sqlite:///{tmp_path}",
        broker_url="http://127.0.0.1:9/nobody/there",
        drain_seconds=0.1,
        argon2_time_cost=1,
        argon2_memory_kib=8,
    )
    runner = ServiceRunner(keyed(bootstrap(settings, verifier=FakeVerifier())))
    await runner.start()
    async with grpc.aio.insecure_channel(runner.grpc_address) as channel, httpx.AsyncClient() as broker:
        users: Any = users_pb2_grpc.UsersServiceStub(channel)
        ada = (await users.Register(pb.RegisterRequest(email="ada@example.com", password=PASSWORD, name="Ada"))).user
        bounced = NotificationBounced(notification_id="ntf_" + "0" * 32, user_id=ada.id)
        headers, content = posted(bounced, "1")
        for _ in range(2):
            answer = await broker.post(runner.http_url, headers=headers, content=content)
            assert (answer.status_code, answer.content) == (204, b"")
        seen = (await users.GetUser(pb.GetUserRequest(user_id=ada.id), metadata=bearer(f"user:{ada.id}"))).user
        assert (seen.email_deliverable, seen.version) == (False, 2)
        headers = cloud_event("dev.knative.sources.ping", "/apis/v1/namespaces/shop/pingsources/sweep", "2")
        answer = await broker.post(runner.http_url, headers=headers, json={"sweep": "all"})
        assert answer.status_code == 204
        assert await runner.function.store.get(User, ada.id)
    await runner.stop()
