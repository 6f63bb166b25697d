"""The events that the products service subscribes to, and the method that handles each."""

from __future__ import annotations

from events.catalog import OrderCancelled, OrderConfirmed, OrderPlaced, Payload, SweepDue
from functions.products.service import ProductsService
from functions.products.stock.service import StockService
from functions.runtime.app import Handler
from functions.runtime.inbox import InboxRecord


def subscriptions(products: ProductsService, stock: StockService) -> dict[type[Payload], Handler]:
    """Return the handlers by payload type."""

    async def sweep(_event: SweepDue, _inbox: InboxRecord) -> None:
        await stock.sweep()
        await products.sweep()

    return {
        OrderPlaced: stock.on_order_placed,
        OrderConfirmed: stock.on_order_confirmed,
        OrderCancelled: stock.on_order_cancelled,
        SweepDue: sweep,
    }
