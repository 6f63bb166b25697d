"""The floors that our code is measured against: the same work with the least code that the libraries allow.

`python -m tests.bench.floors NAME PORT [BACKEND]`; none of these authenticates, traces, logs, counts or
stores anything.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any


async def grpc_echo(port: int) -> None:
    """Serve a product from a bare grpc.aio server."""
    import grpc.aio

    from proto.shop.money.v1 import money_pb2
    from proto.shop.products.v1 import products_pb2 as pb
    from proto.shop.products.v1 import products_pb2_grpc

    class Echo(products_pb2_grpc.ProductsServiceServicer):
        async def GetProduct(self, request: pb.GetProductRequest, context: Any) -> pb.GetProductResponse:
            product = pb.Product(
                id=request.product_id,
                sku="CFE-ETH-250",
                name="Guji Natural, 250 g",
                description="Single-origin coffee from the Guji highlands of Ethiopia.",
                category="coffee",
                price=money_pb2.Money(amount=1190, currency="EUR"),
                active=True,
                version=1,
            )
            return pb.GetProductResponse(product=product)

    server = grpc.aio.server()
    products_pb2_grpc.add_ProductsServiceServicer_to_server(Echo(), server)  # type: ignore[abstract]  # it has what is called
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def grpc_echo_loaded(port: int) -> None:
    """Serve the same with the libraries imported that such a service uses."""
    import boto3
    import opentelemetry.exporter.otlp.proto.grpc.trace_exporter
    import opentelemetry.sdk.trace.export
    import prometheus_client
    import pydantic

    class Model(pydantic.BaseModel):
        """A model that makes pydantic do its first-use work."""

        name: str

    _ = (boto3, opentelemetry, prometheus_client, Model)
    await grpc_echo(port)


async def fastapi_route(port: int, backend: str) -> None:
    """Serve a bare FastAPI route that makes a bare grpc.aio call."""
    import fastapi
    import grpc.aio
    import uvicorn

    from proto.shop.products.v1 import products_pb2 as pb
    from proto.shop.products.v1 import products_pb2_grpc

    stub = products_pb2_grpc.ProductsServiceStub(grpc.aio.insecure_channel(backend))
    app = fastapi.FastAPI()

    @app.get("/v1/products/{product_id}")
    async def product(product_id: str) -> fastapi.responses.JSONResponse:
        found = (await stub.GetProduct(pb.GetProductRequest(product_id=product_id))).product
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


async def sink(port: int) -> None:
    """Answer 204 to every event, and serve the number of events at /count."""
    import uvicorn

    taken = 0

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        nonlocal taken
        body = b""
        if scope["path"] == "/count":
            body = str(taken).encode()
        else:
            taken += 1
            await receive()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200 if body else 204, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(app, port=port, log_level="warning", lifespan="off", access_log=False)
    await uvicorn.Server(config).serve()


async def otlp(port: int) -> None:
    """Receive spans by OTLP over gRPC, and discard them unread."""
    import grpc.aio

    async def export(_: bytes, __: Any) -> bytes:
        return b""

    methods: dict[str, Any] = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, methods)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def hello(request: Any) -> tuple[str, int]:
    """Answer as functions-framework's hello world does; its default server serves this."""
    return "", 204


def main() -> None:
    """Serve one floor on uvloop."""
    import uvloop

    name, port, *rest = sys.argv[1:]
    floors: dict[str, Any] = {
        "grpc": grpc_echo,
        "grpc-loaded": grpc_echo_loaded,
        "fastapi": fastapi_route,
        "sink": sink,
        "otlp": otlp,
    }
    uvloop.run(_serve(floors[name], int(port), rest))


async def _serve(floor: Any, port: int, rest: list[str]) -> None:
    await asyncio.gather(floor(port, *rest))


if __name__ == "__main__":
    main()
