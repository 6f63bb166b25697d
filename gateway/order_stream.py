"""Server-sent events: an order's progress, from the orders service's WatchOrder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from functions.runtime.identity import Identity
from functions.runtime.rpc.errors import from_rpc_error
from gateway.app_state import AppState
from gateway.middleware.request_context import RequestContext
from gateway.models.orders import FINAL, order
from gateway.responses import until_disconnected
from proto.shop.orders.v1 import orders_pb2 as pb

RETRY_MILLISECONDS = 2000
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
# No blank line follows these lines, because a blank line ends an event, and some parsers report a block without data as
# an event, against the standard. So these lines belong to the block of the next event.
_START = f"retry: {RETRY_MILLISECONDS}\n".encode()
_HEARTBEAT = b": still here\n"
_encode = msgspec.json.Encoder().encode


class OrderStream(Response):
    """A response that streams the states of an order.

    The stream ends with the order's final state, when the watch ends, or when the gateway stops. A client that
    disconnects cancels the watch.
    """

    media_type = "text/event-stream"

    def __init__(self, state: AppState, user_id: str, watch: Any, first: pb.Order, seen: str) -> None:
        super().__init__(None, 200, _HEADERS)
        # Starlette set the content length of an empty body; the length of this body is not known.
        self.raw_headers = [header for header in self.raw_headers if header[0] != b"content-length"]
        self._state = state
        self._user_id = user_id
        self._watch = watch
        self._first = first
        self._seen = seen

    @staticmethod
    async def open(context: RequestContext, caller: Identity, order_id: str, seen: str) -> Response:
        """Start watching an order. Returns a stream, or 204 if no further state will come. Raises ServiceError.

        `seen` is the version that the client already has; it is empty if the client has none.
        """
        state, watch = context.state, None
        state.streams.acquire(caller.subject)
        try:
            orders = state.clients.orders
            watch = orders.stub.WatchOrder(
                pb.WatchOrderRequest(order_id=order_id),
                timeout=state.settings.stream_seconds,
                metadata=orders.grpc.metadata(),
                wait_for_ready=True,  # within the deadline of the first message
            )
            first = await _next(watch)
            if first is not None and not (first.status in FINAL and seen == str(first.version)):
                context.streaming = True
                return OrderStream(state, caller.subject, watch, first, seen)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            if not context.streaming:
                state.streams.release(caller.subject)
                if watch is not None:
                    watch.cancel()
        return Response(None, 204, _HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the stream ends or the client disconnects."""
        gone = asyncio.ensure_future(until_disconnected(receive))
        draining = asyncio.ensure_future(self._state.draining.wait())

        async def write(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._relay(write, {gone, draining})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            draining.cancel()
            self._watch.cancel()
            self._state.streams.release(self._user_id)

    async def _relay(self, write: Callable[[bytes], Awaitable[None]], enough: set[asyncio.Future[Any]]) -> None:
        await write(_START if str(self._first.version) == self._seen else _START + event(self._first))
        message: pb.Order | None = self._first
        while message is not None and message.status not in FINAL:
            following = asyncio.ensure_future(_next(self._watch))
            try:
                if not await self._arrives(following, enough, write):
                    return
                message = following.result()
            except grpc.aio.AioRpcError:
                return  # an EventSource reconnects by itself, and gets the error as a response then
            finally:
                following.cancel()
            if message is not None:
                await write(event(message))

    async def _arrives(
        self,
        following: asyncio.Future[Any],
        enough: set[asyncio.Future[Any]],
        write: Callable[[bytes], Awaitable[None]],
    ) -> bool:
        """Send heartbeats until `following`, or one of the futures in `enough`, is done.

        Returns whether `following` is done and none of `enough`.
        """
        seconds = self._state.settings.heartbeat_seconds
        while True:
            done, _ = await asyncio.wait({following, *enough}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if done & enough:
                return False
            if following in done:
                return True
            await write(_HEARTBEAT)


def event(message: pb.Order) -> bytes:
    """Return an order as a server-sent event. JSON has no line breaks, so one data line is enough."""
    return b"event: order\nid: %d\ndata: %s\n\n" % (message.version, _encode(order(message)))


async def _next(watch: Any) -> pb.Order | None:
    message = await watch.read()
    return None if message is grpc.aio.EOF else message.order
