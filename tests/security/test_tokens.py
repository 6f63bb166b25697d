"""Forged tokens are refused by the gateway and by each service. A session ends when it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest

from knative.local.demo.shop import Person, Shop
from tests.conftest import MakeProduct
from tests.e2e.platform import LocalPlatform
from tests.security.callers import Callers
from tests.security.forgeries import Forger

# A method of each service that an administrator may call with an empty request.
SERVERS = {
    "users": "shop.users.v1.UsersService/ListUsers",
    "products": "shop.products.v1.ProductsService/CreateProduct",
    "orders": "shop.orders.v1.OrdersService/ListOrders",
    "payments": "shop.payments.v1.PaymentsService/ListLedger",
    "notifications": "shop.notifications.v1.NotificationsService/ListNotifications",
}
UNREADABLE = {400, 401, 431}  # 400, 431: more than a header may hold


@pytest.fixture
def forger(callers: Callers, local: LocalPlatform) -> Forger:
    return Forger(callers, local.folder)


async def at_the_gateway(callers: Callers, token: str) -> int:
    url = f"{callers.platform.base_url}/v1/admin/users"
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers={"authorization": f"Bearer {token}"}) as answer,
    ):
        return answer.status


async def at_the_services(callers: Callers, tokens: dict[str, str]) -> dict[tuple[str, str], grpc.StatusCode]:
    """What each service answers to each token, by service and the token's name."""
    found = {}
    for domain, path in SERVERS.items():
        async with grpc.aio.insecure_channel(callers.grpc_address(domain)) as channel:
            call: Any = channel.unary_unary(f"/{path}")
            for name, token in tokens.items():
                try:
                    await call(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=20)
                    found[domain, name] = grpc.StatusCode.OK
                except grpc.aio.AioRpcError as error:
                    found[domain, name] = error.code()
    return found


async def test_what_the_forger_signs_is_good_where_it_says_the_right_thing(callers: Callers, forger: Forger) -> None:
    good = forger.signed()
    assert await at_the_gateway(callers, good) == 200
    answers = await at_the_services(callers, {"good": good})
    assert grpc.StatusCode.UNAUTHENTICATED not in answers.values()
    assert answers["users", "good"] is grpc.StatusCode.OK


async def test_the_gateway_refuses_every_forged_token(callers: Callers, forger: Forger) -> None:
    answers = {name: await at_the_gateway(callers, token) for name, token in forger.corpus().items()}
    assert {name: status for name, status in answers.items() if status != 401} == {}


async def test_every_service_refuses_every_forged_token_by_itself(callers: Callers, forger: Forger) -> None:
    answers = await at_the_services(callers, forger.corpus())
    let_in = {server: code for server, code in answers.items() if code is not grpc.StatusCode.UNAUTHENTICATED}
    assert let_in == {}


async def test_a_token_of_a_megabyte_is_turned_away(callers: Callers, forger: Forger) -> None:
    huge = forger.signed() + "A" * 1024 * 1024
    with contextlib.suppress(aiohttp.ClientOSError):  # the connection is closed while the client still sends
        assert await at_the_gateway(callers, huge) in UNREADABLE
    answers = await at_the_services(callers, {"huge": huge})
    assert grpc.StatusCode.OK not in answers.values()
    assert await at_the_gateway(callers, forger.signed()) == 200


@pytest.mark.parametrize("scheme", ["Basic", "bearer2", "", "Token"])
async def test_a_good_token_under_another_scheme_is_refused(callers: Callers, shop: Shop, scheme: str) -> None:
    headers = {"authorization": f"{scheme} {callers.token('admin')}".strip()}
    status, _, _ = await shop.raw("GET", "/v1/admin/users", headers=headers)
    assert status == 401


async def test_keys_rotate_without_a_failed_request(shop: Shop, admin: Person, customer: Person) -> None:
    rotated = asyncio.Event()

    async def customers_go_on() -> list[int]:
        seen: list[int] = []
        while not rotated.is_set() or len(seen) < 20:
            seen.append((await shop.raw("GET", "/v1/orders", who=customer))[0])
        return seen

    going_on = asyncio.create_task(customers_go_on())
    before = (await shop.call("GET", "/.well-known/jwks.json"))["keys"]
    # Another test may have done it: once a minute is allowed.
    after = await shop.patiently("POST", "/v1/admin/keys/rotate", seconds=90, who=admin)
    fresh = await shop.login(customer.email, customer.password)
    answers = [(await shop.raw("GET", "/v1/orders", who=fresh))[0] for _ in range(5)]
    rotated.set()

    assert {key["kid"] for key in after["keys"]} > {key["kid"] for key in before}
    assert set(answers + await going_on) == {200}


async def test_after_logging_out_the_session_cannot_be_renewed(shop: Shop, customer: Person) -> None:
    given = {"refresh_token": customer.tokens["refresh_token"]}
    await shop.call("DELETE", "/v1/sessions", json=given)
    assert (await shop.raw("POST", "/v1/sessions/refresh", json=given))[0] == 401


@pytest.mark.slow
async def test_an_ended_session_opens_no_door_a_minute_later(
    callers: Callers, shop: Shop, customer: Person, local: LocalPlatform
) -> None:
    """Every verifier asks for what is void at least each 40 s."""
    out, stolen = await shop.login(customer.email, customer.password), await shop.register()
    people = {"logged out": out, "reused": stolen, "password changed": customer}
    tokens = {how: str(person.tokens["access_token"]) for how, person in people.items()}

    async def let_in() -> set[tuple[str, str]]:
        servers = await at_the_services(callers, tokens)
        found = {server for server, code in servers.items() if code is not grpc.StatusCode.UNAUTHENTICATED}
        for how, token in tokens.items():
            if await at_the_gateway(callers, token) != 401:
                found.add(("gateway", how))
        return found

    assert await let_in() == {(server, how) for server in (*SERVERS, "gateway") for how in people}
    await shop.call("DELETE", "/v1/sessions", json={"refresh_token": out.tokens["refresh_token"]})
    for status in (200, 401):
        given = {"refresh_token": stolen.tokens["refresh_token"]}
        assert (await shop.raw("POST", "/v1/sessions/refresh", json=given))[0] == status
    body = {"current_password": customer.password, "new_password": "an entirely new secret"}
    await shop.call("PUT", "/v1/users/me/password", who=customer, json=body)
    deadline = time.monotonic() + 60
    while still := await let_in():
        assert time.monotonic() < deadline, still
        await asyncio.sleep(1)


@pytest.mark.slow
async def test_neither_an_open_stream_nor_calls_in_a_hurry_outlive_a_changed_password_by_a_minute(
    callers: Callers, shop: Shop, customer: Person, make_product: MakeProduct
) -> None:
    """The calls have deadlines of 5 ms, in which no key set can be fetched: they once switched revocation off."""
    product = await make_product()
    order = await shop.order(customer, {product["id"]: 1})
    await shop.settled(customer, order["id"])
    bearer = (("authorization", f"Bearer {customer.tokens['access_token']}"),)
    body = {"current_password": customer.password, "new_password": "an entirely new secret"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
        grpc.aio.insecure_channel(callers.grpc_address("orders")) as channel,
        session.get(f"{callers.platform.base_url}/v1/orders/{order['id']}/stream", headers=dict(bearer)) as stream,
    ):
        call: Any = channel.unary_unary("/" + SERVERS["orders"])
        await call(b"", metadata=bearer, timeout=20)
        await shop.call("PUT", "/v1/users/me/password", who=customer, json=body)

        async def hurry() -> None:
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await call(b"", metadata=bearer, timeout=0.005)
                await asyncio.sleep(0.05)

        hurried = asyncio.create_task(hurry())
        async with asyncio.timeout(60):
            assert stream.status == 200
            await stream.read()  # to its end
        hurried.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=bearer, timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_changed_password_ends_every_session(shop: Shop, customer: Person) -> None:
    elsewhere = await shop.login(customer.email, customer.password)
    body = {"current_password": customer.password, "new_password": "an entirely new secret"}
    await shop.call("PUT", "/v1/users/me/password", who=customer, json=body)
    for person in (customer, elsewhere):
        given = {"refresh_token": person.tokens["refresh_token"]}
        assert (await shop.raw("POST", "/v1/sessions/refresh", json=given))[0] == 401
