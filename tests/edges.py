"""The edges that traces must have, a line each: `service: operation -> service: operation`, parent before child.

To add a service is to add its lines. tests/e2e/observed asks the processes for them, tests/integration one process.
"""

from __future__ import annotations

PLACED = """
gateway: POST /v1/orders -> gateway: shop.orders.v1.OrdersService/PlaceOrder
gateway: shop.orders.v1.OrdersService/PlaceOrder -> orders: shop.orders.v1.OrdersService/PlaceOrder
orders: shop.orders.v1.OrdersService/PlaceOrder -> orders: shop.products.v1.ProductsService/BatchGetProducts
orders: shop.products.v1.ProductsService/BatchGetProducts -> products: shop.products.v1.ProductsService/BatchGetProducts
orders: shop.orders.v1.OrdersService/PlaceOrder -> orders: transact DeletedAccount Order
orders: transact DeletedAccount Order -> orders: publish shop.order.placed.v1
orders: publish shop.order.placed.v1 -> broker: deliver shop/products-events
broker: deliver shop/products-events -> products: process shop.order.placed.v1
products: process shop.order.placed.v1 -> products: transact Reservation Stock
products: transact Reservation Stock -> products: publish shop.stock.reserved.v1
products: publish shop.stock.reserved.v1 -> broker: deliver shop/orders-events
products: publish shop.stock.reserved.v1 -> broker: deliver shop/payments-events
broker: deliver shop/orders-events -> orders: process shop.stock.reserved.v1
orders: process shop.stock.reserved.v1 -> orders: transact Order
broker: deliver shop/payments-events -> payments: process shop.stock.reserved.v1
payments: process shop.stock.reserved.v1 -> payments: shop.orders.v1.OrdersService/GetPaymentInstruction
payments: shop.orders.v1.OrdersService/GetPaymentInstruction -> orders: shop.orders.v1.OrdersService/GetPaymentInstruction
"""
CONFIRMED = """
payments: transact Payment Refund -> payments: publish shop.payment.captured.v1
payments: publish shop.payment.captured.v1 -> broker: deliver shop/orders-events
broker: deliver shop/orders-events -> orders: process shop.payment.captured.v1
orders: transact Order -> orders: publish shop.order.confirmed.v1
orders: publish shop.order.confirmed.v1 -> broker: deliver shop/products-events
broker: deliver shop/products-events -> products: process shop.order.confirmed.v1
products: process shop.order.confirmed.v1 -> products: transact Reservation Stock
orders: publish shop.order.confirmed.v1 -> broker: deliver shop/notifications-events
broker: deliver shop/notifications-events -> notifications: process shop.order.confirmed.v1
notifications: process shop.order.confirmed.v1 -> notifications: shop.users.v1.UsersService/GetContacts
notifications: shop.users.v1.UsersService/GetContacts -> users: shop.users.v1.UsersService/GetContacts
notifications: process shop.order.confirmed.v1 -> notifications: send order_confirmed
"""
DECLINED = """
payments: transact Payment Refund -> payments: publish shop.payment.declined.v1
payments: publish shop.payment.declined.v1 -> broker: deliver shop/orders-events
broker: deliver shop/orders-events -> orders: process shop.payment.declined.v1
orders: transact Order -> orders: publish shop.order.cancelled.v1
orders: publish shop.order.cancelled.v1 -> broker: deliver shop/products-events
broker: deliver shop/products-events -> products: process shop.order.cancelled.v1
orders: publish shop.order.cancelled.v1 -> broker: deliver shop/payments-events
broker: deliver shop/payments-events -> payments: process shop.order.cancelled.v1
orders: publish shop.order.cancelled.v1 -> broker: deliver shop/notifications-events
broker: deliver shop/notifications-events -> notifications: process shop.order.cancelled.v1
notifications: process shop.order.cancelled.v1 -> notifications: send order_cancelled
"""
CANCELLED = """
gateway: POST /v1/orders/{order_id}/cancel -> gateway: shop.orders.v1.OrdersService/CancelOrder
gateway: shop.orders.v1.OrdersService/CancelOrder -> orders: shop.orders.v1.OrdersService/CancelOrder
orders: shop.orders.v1.OrdersService/CancelOrder -> orders: transact Order
orders: transact Order -> orders: publish shop.order.cancelled.v1
orders: publish shop.order.cancelled.v1 -> broker: deliver shop/products-events
broker: deliver shop/products-events -> products: process shop.order.cancelled.v1
orders: publish shop.order.cancelled.v1 -> broker: deliver shop/payments-events
broker: deliver shop/payments-events -> payments: process shop.order.cancelled.v1
payments: transact Payment Refund -> payments: publish shop.payment.refunded.v1
payments: publish shop.payment.refunded.v1 -> broker: deliver shop/orders-events
broker: deliver shop/orders-events -> orders: process shop.payment.refunded.v1
orders: publish shop.order.cancelled.v1 -> broker: deliver shop/notifications-events
broker: deliver shop/notifications-events -> notifications: process shop.order.cancelled.v1
notifications: process shop.order.cancelled.v1 -> notifications: send order_cancelled
"""
REFUNDED = """
gateway: POST /v1/payments/{payment_id}/refunds -> gateway: shop.payments.v1.PaymentsService/RefundPayment
gateway: shop.payments.v1.PaymentsService/RefundPayment -> payments: shop.payments.v1.PaymentsService/RefundPayment
payments: transact Payment Refund -> payments: publish shop.payment.refunded.v1
payments: publish shop.payment.refunded.v1 -> broker: deliver shop/orders-events
broker: deliver shop/orders-events -> orders: process shop.payment.refunded.v1
orders: process shop.payment.refunded.v1 -> orders: transact Order
payments: publish shop.payment.refunded.v1 -> broker: deliver shop/notifications-events
broker: deliver shop/notifications-events -> notifications: process shop.payment.refunded.v1
notifications: process shop.payment.refunded.v1 -> notifications: send payment_refunded
"""
SHIPPED = """
gateway: POST /v1/orders/{order_id}/ship -> gateway: shop.orders.v1.OrdersService/ShipOrder
gateway: shop.orders.v1.OrdersService/ShipOrder -> orders: shop.orders.v1.OrdersService/ShipOrder
orders: shop.orders.v1.OrdersService/ShipOrder -> orders: transact Order
orders: transact Order -> orders: publish shop.order.shipped.v1
orders: publish shop.order.shipped.v1 -> broker: deliver shop/notifications-events
broker: deliver shop/notifications-events -> notifications: process shop.order.shipped.v1
notifications: process shop.order.shipped.v1 -> notifications: send order_shipped
"""
# An order that nothing moved any more: the sweep cancels it, in a trace of its own.
SWEPT = """
broker: deliver shop/orders-events -> orders: process dev.knative.sources.ping
orders: transact Order -> orders: publish shop.order.cancelled.v1
orders: publish shop.order.cancelled.v1 -> broker: deliver shop/products-events
broker: deliver shop/products-events -> products: process shop.order.cancelled.v1
orders: publish shop.order.cancelled.v1 -> broker: deliver shop/notifications-events
broker: deliver shop/notifications-events -> notifications: process shop.order.cancelled.v1
"""

Edge = tuple[str, str]


def lines(*tables: str) -> list[str]:
    """The lines of these tables."""
    return [line for table in tables for line in table.splitlines() if line]


def edge(line: str) -> Edge:
    """(parent, child) of a line."""
    parent, _, child = line.partition(" -> ")
    return parent, child
