"""The standard health service, grpc.health.v1."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health, health_pb2

NAME = "grpc.health.v1.Health"


class Health(health.aio.HealthServicer):
    """The package's servicer, and `List`, which it leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self._statuses: dict[str, Any] = {}

    async def set(self, service: str, status: Any) -> None:
        """Set what Check and Watch answer for one service, and List for all."""
        self._statuses[service] = health_pb2.HealthCheckResponse(status=status)
        await super().set(service, status)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC names methods in CamelCase
        """The status of each service; the whole server's by the name of an empty string."""
        return health_pb2.HealthListResponse(statuses=self._statuses)  # type: ignore[attr-defined] # the stubs are older
