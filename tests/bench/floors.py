"""What our code is measured against: the same work with as little as the libraries allow.

`python -m tests.bench.floors NAME PORT [BACKEND]`; none of these authenticates, traces, logs, counts or stores anything.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any


async def grpc_echo(port: int) -> None:
    """A bare grpc.aio server that answers a product."""
    import grpc.aio

    from proto.products.v1 import products_pb2 as pb
    from proto.products.v1 import products_pb2_grpc

    class Echo(products_pb2_grpc.ProductsServicer):
        async def GetProduct(self, request: pb.GetProductRequest, context: Any) -> pb.Product:
            return pb.Product(
                id=request.product_id,
                sku="CFE-ETH-250",
                name="Guji Natural, 250 g",
                description="Single-origin coffee from the Guji highlands of Ethiopia.",
                category="coffee",
                price={"amount": 1190, "currency": "EUR"},
                active=True,
                version=1,
            )

    server = grpc.aio.server()
    products_pb2_grpc.add_ProductsServicer_to_server(Echo(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def grpc_echo_loaded(port: int) -> None:
    """The same with the libraries imported that a service of this kind uses."""
    import boto3
    import opentelemetry.exporter.otlp.proto.grpc.trace_exporter
    import opentelemetry.sdk.trace.export
    import prometheus_client
    import pydantic

    class Model(pydantic.BaseModel):
        """Pydantic does its work when a first model is made."""

        name: str

    _ = (boto3, opentelemetry, prometheus_client, Model)
    await grpc_echo(port)


async def fastapi_route(port: int, backend: str) -> None:
    """A bare FastAPI route that makes a bare grpc.aio call."""
    import fastapi
    import grpc.aio
    import uvicorn

    from proto.products.v1 import products_pb2 as pb
    from proto.products.v1 import products_pb2_grpc

    stub = products_pb2_grpc.ProductsStub(grpc.aio.insecure_channel(backend))
    app = fastapi.FastAPI()

    @app.get("/v1/products/{product_id}")
    async def product(product_id: str) -> fastapi.responses.JSONResponse:
        found = await stub.GetProduct(pb.GetProductRequest(product_id=product_id))
        price = {"amount": found.price.amount, "currency": found.price.currency}
        return fastapi.responses.JSONResponse(
            {
                "id": found.id,
                "sku": found.sku,
                "name": found.name,
                "description": found.description,
                "category": found.category,
                "price": price,
                "image_urls": list(found.image_urls),
                "active": found.active,
                "version": found.version,
            }
        )

    await uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning")).serve()


def hello(request: Any) -> tuple[str, int]:
    """functions-framework's hello world; served by its default server."""
    return "", 204


def main() -> None:
    """Serve one floor on uvloop."""
    import uvloop

    name, port, *rest = sys.argv[1:]
    floors: dict[str, Any] = {
        "grpc": grpc_echo,
        "grpc-loaded": grpc_echo_loaded,
        "fastapi": fastapi_route,
    }
    uvloop.run(_serve(floors[name], int(port), rest))


async def _serve(floor: Any, port: int, rest: list[str]) -> None:
    await asyncio.gather(floor(port, *rest))


if __name__ == "__main__":
    main()
