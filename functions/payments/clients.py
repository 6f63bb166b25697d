"""Calls to the orders service, which tells payments the amount to charge for an order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from events.catalog import Money
from functions.runtime.grpc_client import GrpcClient


@dataclass(frozen=True)
class Instruction:
    """The instruction to charge an order: amount, payer and token. `token` is never stored or shown."""

    order_id: str
    user_id: str
    amount: Money
    payable: bool
    token: str = field(default="", repr=False)


class Orders(Protocol):
    """The orders service, as payments needs it."""

    async def payment_instruction(self, order_id: str) -> Instruction:
        """Return the instruction to charge an order. Raises NOT_FOUND, or UNAVAILABLE if orders does not answer."""


class OrdersClient:
    """The orders service over gRPC, called with this service's own token."""

    def __init__(self, client: GrpcClient) -> None:
        self._client = client

    async def payment_instruction(self, order_id: str) -> Instruction:
        # Imported at the first call, so that a process with ROLE=events starts without gRPC.
        from proto.shop.orders.v1 import orders_pb2, orders_pb2_grpc

        stub = self._client.stub(orders_pb2_grpc.OrdersServiceStub)
        request = orders_pb2.GetPaymentInstructionRequest(order_id=order_id)
        answer = await self._client.call(stub.GetPaymentInstruction, request, as_service=True, retry=True)
        found = answer.payment_instruction
        amount = Money(found.amount.amount, found.amount.currency)
        return Instruction(found.order_id, found.user_id, amount, found.payable, found.payment_token)
