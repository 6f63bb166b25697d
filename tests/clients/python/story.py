"""A customer's story, lived by the generated client: arguments are the base URL, an e-mail address and a password."""

import sys
import time
from typing import TypeVar

from shop_client import AuthenticatedClient, Client
from shop_client.api.orders import list_orders, place_order, read_order
from shop_client.api.products import list_products
from shop_client.api.sessions import log_in
from shop_client.api.users import register_user
from shop_client.models import (
    AddressIn,
    LineIn,
    Login,
    Order,
    OrderPage,
    OrderStatus,
    PlaceOrder,
    ProductPage,
    Register,
    Session,
    User,
)

T = TypeVar("T")


def got(answer: object, wanted: type[T]) -> T:
    """Return the answer, which must be of the type that was hoped for."""
    assert isinstance(answer, wanted), answer
    return answer


def main(base_url: str, email: str, password: str) -> None:
    stranger = Client(base_url=base_url)
    person = Register(email=email, password=password, name="Ada Lovelace")
    got(register_user.sync(client=stranger, body=person), User)
    session = got(log_in.sync(client=stranger, body=Login(email=email, password=password)), Session)
    client = AuthenticatedClient(base_url=base_url, token=session.access_token)

    product = got(list_products.sync(client=client, limit=1), ProductPage).items[0]
    address = AddressIn(name="Ada Lovelace", line1="Hauptstr. 1", city="Berlin", postal_code="10115", country="DE")
    wanted = PlaceOrder([LineIn(product_id=product.id, quantity=1)], address, "tok_ok")
    order = got(place_order.sync(client=client, body=wanted, idempotency_key="story-python"), Order)
    deadline = time.monotonic() + 60
    while order.status != OrderStatus.ORDER_STATUS_CONFIRMED:
        assert time.monotonic() < deadline, f"still {order.status}"
        time.sleep(0.1)
        order = got(read_order.sync(order.id, client=client), Order)
    page = got(list_orders.sync(client=client, status=OrderStatus.ORDER_STATUS_CONFIRMED), OrderPage)
    assert len(page.items) == 1
    assert page.next_cursor is None
    assert order.total.amount == product.price.amount
    sys.stdout.write(f"{order.status}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
