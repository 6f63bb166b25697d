"""The one question that payments asks another domain: how is this order paid?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from events.catalog import Money
from functions.runtime.grpc_client import GrpcClient


@dataclass(frozen=True)
class Instruction:
    """What to charge for an order. The token lives as long as this object: it is never kept or shown."""

    order_id: str
    user_id: str
    amount: Money
    payable: bool
    token: str = field(default="", repr=False)


class Orders(Protocol):
    """The orders service, as payments needs it."""

    async def payment_instruction(self, order_id: str) -> Instruction:
        """Raises NOT_FOUND, or UNAVAILABLE when orders does not answer."""


class OrdersPeer:
    """Orders over gRPC, with this service's own token."""

    def __init__(self, peer: GrpcClient) -> None:
        self._peer = peer

    async def payment_instruction(self, order_id: str) -> Instruction:
        """See Orders."""
        from proto.shop.orders.v1 import (
            orders_pb2 as pb,  # at the first question: the event role starts without gRPC
        )
        from proto.shop.orders.v1 import orders_pb2_grpc

        stub = self._peer.stub(orders_pb2_grpc.OrdersServiceStub)
        request = pb.GetPaymentInstructionRequest(order_id=order_id)
        answer = (
            await self._peer.call(stub.GetPaymentInstruction, request, as_service=True, retry=True)
        ).payment_instruction
        amount = Money(answer.amount.amount, answer.amount.currency)
        return Instruction(answer.order_id, answer.user_id, amount, answer.payable, answer.payment_token)
