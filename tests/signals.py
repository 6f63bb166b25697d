"""The signals that each service must give of the stories in tests/e2e/observed: a line per service and signal.

`service kind name: fields`, where the fields are those of a log line (besides COMMON), the labels of a metric or the
attributes of a span, after OpenTelemetry's conventions. To add a service is to add its lines.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.edges import CANCELLED, CONFIRMED, DECLINED, PLACED, REFUNDED, SHIPPED, edge, lines

SIGNALS = """
gateway log request: method route status duration_ms user_id
gateway metric http_server_request_duration_seconds_count: service method route status
gateway metric shop_trace_spans_total: service outcome
gateway span POST /v1/orders: http.request.method http.route http.response.status_code url.scheme
gateway span shop.orders.v1.OrdersService/PlaceOrder: rpc.system.name rpc.method rpc.response.status_code server.address server.port

users log rpc: method code duration_ms
users metric rpc_server_duration_seconds_count: service method code
users metric shop_events_committed_total: service type
users metric shop_events_published_total: service type outcome
users span shop.users.v1.UsersService/GetContacts: rpc.system.name rpc.method rpc.response.status_code
users span publish shop.user.registered.v1: messaging.system messaging.operation.type messaging.operation.name messaging.destination.name messaging.message.id cloudevents.event_subject shop.retry_count

orders log rpc: method code duration_ms
orders log event: type event_id source subject outcome duration_ms
orders metric rpc_server_duration_seconds_count: service method code
orders metric shop_event_handling_seconds_count: service type outcome
orders metric shop_events_committed_total: service type
orders metric shop_events_published_total: service type outcome
orders metric shop_orders_total: status
orders metric shop_orders_cancelled_total: reason
orders metric shop_saga_seconds_count: outcome
orders span shop.orders.v1.OrdersService/PlaceOrder: rpc.system.name rpc.method rpc.response.status_code
orders span transact Order: db.system.name db.namespace db.operation.name db.collection.name
orders span publish shop.order.placed.v1: messaging.system messaging.operation.type messaging.operation.name messaging.destination.name messaging.message.id cloudevents.event_subject shop.retry_count
orders span process shop.stock.reserved.v1: messaging.system messaging.operation.type messaging.operation.name messaging.destination.name messaging.message.id cloudevents.event_type cloudevents.event_source

products log rpc: method code duration_ms
products log event: type event_id source subject outcome duration_ms
products metric rpc_server_duration_seconds_count: service method code
products metric shop_event_handling_seconds_count: service type outcome
products metric shop_events_committed_total: service type
products metric shop_events_published_total: service type outcome
products span shop.products.v1.ProductsService/BatchGetProducts: rpc.system.name rpc.method rpc.response.status_code
products span transact Reservation Stock: db.system.name db.namespace db.operation.name db.query.summary
products span publish shop.stock.reserved.v1: messaging.system messaging.operation.type messaging.operation.name messaging.destination.name messaging.message.id cloudevents.event_subject shop.retry_count
products span process shop.order.placed.v1: messaging.system messaging.operation.type messaging.operation.name messaging.destination.name messaging.message.id cloudevents.event_type cloudevents.event_source

payments log rpc: method code duration_ms
payments log event: type event_id source subject outcome duration_ms
payments metric rpc_server_duration_seconds_count: service method code
payments metric shop_event_handling_seconds_count: service type outcome
payments metric shop_events_committed_total: service type
payments metric shop_events_published_total: service type outcome
payments metric shop_payments_total: outcome
payments metric shop_revenue_minor_total: currency
payments metric shop_refunds_minor_total: currency
payments metric shop_currency_minor_units: currency
payments span shop.orders.v1.OrdersService/GetPaymentInstruction: rpc.system.name rpc.method rpc.response.status_code server.address server.port
payments span publish shop.payment.captured.v1: messaging.system messaging.operation.type messaging.operation.name messaging.destination.name messaging.message.id cloudevents.event_subject shop.retry_count
payments span process shop.stock.reserved.v1: messaging.system messaging.operation.type messaging.operation.name messaging.destination.name messaging.message.id cloudevents.event_type cloudevents.event_source

notifications log event: type event_id source subject outcome duration_ms
notifications metric shop_event_handling_seconds_count: service type outcome
notifications span process shop.order.confirmed.v1: messaging.system messaging.operation.type messaging.operation.name messaging.destination.name messaging.message.id cloudevents.event_type cloudevents.event_source
notifications span send order_confirmed: shop.template shop.channel

broker log delivery failed, retrying: trigger event_id event_type subject subscriber code attempts wait
broker metric shop_broker_events_received_total: broker
broker metric shop_broker_attempts_total: trigger result
broker metric shop_broker_retries_total: trigger
broker metric shop_broker_deliveries_total: trigger result
broker metric shop_broker_dispatch_seconds_count: trigger
broker span deliver shop/products-events: messaging.system messaging.operation.type messaging.operation.name messaging.destination.name messaging.destination.subscription.name messaging.message.id shop.retry_count
"""  # noqa: E501 - a line is a signal

COMMON = frozenset({"time", "level", "service", "event", "correlation_id"})
"""What every log line of some work has; those of a traced part also say which span they belong to."""


class Signal(NamedTuple):
    """A line: `kind` is log, metric or span."""

    service: str
    kind: str
    name: str
    fields: frozenset[str]


def signals() -> list[Signal]:
    """All lines."""
    found = []
    for line in filter(None, SIGNALS.splitlines()):
        head, _, fields = line.rpartition(": ")
        service, kind, name = head.split(" ", 2)
        found.append(Signal(service, kind, name, frozenset(fields.split())))
    return found


def traced() -> set[str]:
    """The services in the table of edges."""
    table = lines(PLACED, CONFIRMED, DECLINED, CANCELLED, REFUNDED, SHIPPED)
    return {end.partition(": ")[0] for line in table for end in edge(line)}
