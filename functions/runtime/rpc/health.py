"""The standard health service, grpc.health.v1."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health, health_pb2

NAME = "grpc.health.v1.Health"


class Health(health.aio.HealthServicer):
    """The servicer of grpcio-health-checking, plus the method `List`, which that package lacks."""

    def __init__(self) -> None:
        super().__init__()
        self._statuses: dict[str, Any] = {}

    async def set(self, service: str, status: Any) -> None:
        """Set the status of one service, which Check, Watch and List report."""
        self._statuses[service] = health_pb2.HealthCheckResponse(status=status)
        await super().set(service, status)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC names methods in CamelCase
        """Return the status of each service. The empty name stands for the whole server."""
        return health_pb2.HealthListResponse(statuses=self._statuses)  # type: ignore[attr-defined] # the stubs are older
