"""Who may do what, RPC by RPC: every service decides for itself, whatever a gateway let through."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest
from google.protobuf import json_format, message_factory

from knative.local.demo.shop import ADDRESS
from tests.e2e.platform import LocalPlatform
from tests.security.callers import CALLERS, Callers, order_body, product_body, replenish

DOMAINS = ("users", "products", "orders", "payments", "notifications")
EVERYBODY = frozenset(CALLERS)
PEOPLE = frozenset({"stranger", "customer", "admin"})
OWNER = frozenset({"customer", "admin"})
ADMIN = frozenset({"admin"})
REFUSED = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND}


class Row(NamedTuple):
    """Who may, and a request (as JSON) that would do something; `{names}` are ids of the customer's data."""

    may: frozenset[str]
    request: Mapping[str, Any]


ME = {"user_id": "{user_id}"}
ORDER = {"order_id": "{order_id}"}
PAYMENT = {"payment_id": "{payment_id}"}
PRODUCT = {"product_id": "{product_id}"}
RPCS: Mapping[str, Row] = {
    "users.Register": Row(EVERYBODY, {"email": "x", "password": "x", "name": "x"}),
    "users.Login": Row(EVERYBODY, {"email": "nobody@example.com", "password": "x"}),
    "users.Refresh": Row(EVERYBODY, {"refresh_token": "x"}),
    "users.Logout": Row(EVERYBODY, {"refresh_token": "x"}),
    "users.GetJwks": Row(EVERYBODY, {}),
    "users.RequestPasswordReset": Row(EVERYBODY, {"email": "nobody@example.com"}),
    "users.ResetPassword": Row(EVERYBODY, {"token": "x", "new_password": "x"}),
    "users.VerifyEmail": Row(EVERYBODY, {"token": "x"}),
    "users.ConfirmEmailChange": Row(EVERYBODY, {"token": "x"}),
    "users.UndoEmailChange": Row(EVERYBODY, {"token": "x"}),
    "users.ExportUser": Row(OWNER, ME),
    "users.RequestEmailVerification": Row(OWNER, ME),
    "users.IssueMailedToken": Row(frozenset({"notifications"}), {**ME, "purpose": "PURPOSE_EMAIL_VERIFICATION"}),
    "users.GetUser": Row(OWNER, ME),
    "users.ListUsers": Row(ADMIN, {}),
    "users.UpdateUser": Row(OWNER, {**ME, "name": "Customer"}),
    "users.ChangePassword": Row(OWNER, {**ME, "current_password": "x", "new_password": "x"}),
    "users.SetRoles": Row(ADMIN, {"user_id": "{leaving_id}", "roles": ["customer"]}),
    "users.DeleteUser": Row(frozenset({"leaving"}), {"user_id": "{leaving_id}"}),
    "users.ListAddresses": Row(OWNER, ME),
    "users.AddAddress": Row(OWNER, {**ME, "address": ADDRESS}),
    "users.UpdateAddress": Row(OWNER, {**ME, "address": {"id": "{address_id}", **ADDRESS}}),
    "users.DeleteAddress": Row(OWNER, {**ME, "address_id": "{address_id}"}),
    "users.GetContacts": Row(frozenset({"notifications"}), {"user_ids": ["{user_id}"], "admins": True}),
    "users.RotateKeys": Row(ADMIN, {}),
    "products.CreateProduct": Row(ADMIN, product_body()),
    "products.GetProduct": Row(EVERYBODY, PRODUCT),
    "products.BatchGetProducts": Row(EVERYBODY, {"product_ids": ["{product_id}"]}),
    "products.ListProducts": Row(EVERYBODY, {}),
    "products.UpdateProduct": Row(ADMIN, {**PRODUCT, "name": "Teapot"}),
    "products.DeleteProduct": Row(ADMIN, PRODUCT),
    "products.GetStock": Row(EVERYBODY, PRODUCT),
    "products.SetStock": Row(ADMIN, {**PRODUCT, "on_hand": 100}),
    "products.AdjustStock": Row(ADMIN, {**PRODUCT, "delta": 1, "reason": "Found"}),
    "products.ListStockAdjustments": Row(ADMIN, PRODUCT),
    "products.ListCategories": Row(EVERYBODY, {}),
    "orders.PlaceOrder": Row(PEOPLE, order_body("{product_id}")),
    "orders.GetOrder": Row(OWNER, ORDER),
    "orders.ListOrders": Row(OWNER, {"user_id": "{user_id}"}),
    "orders.CancelOrder": Row(OWNER, ORDER),
    "orders.ShipOrder": Row(ADMIN, ORDER),
    "orders.DeliverOrder": Row(ADMIN, ORDER),
    "orders.WatchOrder": Row(OWNER, ORDER),
    "orders.CreateStreamTicket": Row(OWNER, ORDER),
    "orders.RedeemStreamTicket": Row(EVERYBODY, {**ORDER, "ticket": "x"}),  # the ticket is the proof
    "orders.GetPaymentInstruction": Row(frozenset({"payments"}), ORDER),
    "payments.GetOrderPayment": Row(OWNER, ORDER),
    "payments.BatchGetPayments": Row(ADMIN, {"payment_ids": ["{payment_id}"]}),
    "payments.ListPayments": Row(OWNER, ME),
    "payments.RefundPayment": Row(ADMIN, {**PAYMENT, "amount": {"amount": "1", "currency": "EUR"}}),
    "payments.ListRefunds": Row(OWNER, PAYMENT),
    "payments.ListLedger": Row(ADMIN, {}),
    "payments.ReceiveWebhook": Row(EVERYBODY, {"signature": "x"}),  # the signature is the proof
    "notifications.ListNotifications": Row(OWNER, ME),
    "notifications.GetNotification": Row(OWNER, {"notification_id": "{notification_id}"}),
    "notifications.ReceiveMailEvent": Row(EVERYBODY, {"secret": "x"}),  # the secret is the proof
    "notifications.GetPreferences": Row(OWNER, ME),
    "notifications.UpdatePreferences": Row(OWNER, {**ME, "email_enabled": True}),
}


# Of a login that is older than five minutes these want the password.
AFTER_A_LOGIN = {"users.ExportUser", "users.SetRoles", "users.DeleteUser"}
# Nobody asked for a token, no provider's webhook is configured.
MAY_BE_ABSENT = {"users.IssueMailedToken", "payments.ReceiveWebhook", "notifications.ReceiveMailEvent"}


def methods() -> dict[str, Any]:
    """Descriptors of all methods, by domain and name, as the protos have them."""
    files = (importlib.import_module(f"proto.shop.{name}.v1.{name}_pb2").DESCRIPTOR for name in DOMAINS)
    return {
        f"{file.package.split('.')[1]}.{method.name}": method
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }


METHODS = methods()


def filled(value: Any, ids: Mapping[str, str]) -> Any:
    """The same with the ids in it."""
    if isinstance(value, Mapping):
        return {key: filled(each, ids) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, ids) for each in value]
    return value.format(**ids) if isinstance(value, str) else value


async def ask(callers: Callers, rpc: str, caller: str) -> tuple[grpc.StatusCode, str]:
    """The status, and all that the caller gets to read."""
    method = METHODS[rpc]
    request = json_format.ParseDict(
        filled(RPCS[rpc].request, callers.ids),
        message_factory.GetMessageClass(method.input_type)(),
    )
    token = callers.token(caller, rpc.partition(".")[0])
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with grpc.aio.insecure_channel(callers.grpc_address(rpc.partition(".")[0])) as channel:
        path = f"/{method.containing_service.full_name}/{method.name}"
        answer_type = message_factory.GetMessageClass(method.output_type)
        kind: Any = channel.unary_stream if method.server_streaming else channel.unary_unary
        ask_for = kind(path, lambda sent: sent.SerializeToString(), answer_type.FromString)
        call = ask_for(request, metadata=metadata, timeout=20)
        try:
            answer = await (call.read() if method.server_streaming else call)
        except grpc.aio.AioRpcError as error:
            return error.code(), f"{error.details()} {error.trailing_metadata()}"
        return grpc.StatusCode.OK, str(answer)


def test_every_rpc_has_its_row_and_every_row_its_rpc() -> None:
    assert METHODS.keys() - RPCS.keys() == set(), "say in RPCS who may call these"
    assert RPCS.keys() - METHODS.keys() == set(), "there are no such RPCs any more"


@pytest.mark.parametrize("rpc", RPCS)
async def test_an_rpc_lets_in_whom_it_should_and_tells_others_nothing(
    callers: Callers, local: LocalPlatform, rpc: str
) -> None:
    if rpc in AFTER_A_LOGIN:
        await callers.log_in_again()
    may = RPCS[rpc].may
    for caller in CALLERS:
        if caller in may or (caller == "admin" and may == {"leaving"}):
            continue
        status, told = await ask(callers, rpc, caller)
        refusals = {grpc.StatusCode.UNAUTHENTICATED} if caller == "anonymous" else REFUSED
        assert status in refusals, f"{caller}: {told}"
        assert not [secret for secret in callers.private if secret in told], f"{caller}: {told}"
    for caller in sorted(may):
        status, told = await ask(callers, rpc, caller)
        unknown = {grpc.StatusCode.UNAUTHENTICATED} if may is not EVERYBODY else set()
        wrong = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}
        assert status not in wrong | unknown, f"{caller}: {told}"
        assert status is not grpc.StatusCode.NOT_FOUND or rpc in MAY_BE_ABSENT, f"{caller}: {told}"
        if "{leaving_id}" in RPCS[rpc].request.values() or ".Delete" in rpc:
            await replenish(callers)


@pytest.mark.parametrize("domain", DOMAINS)
async def test_a_message_or_metadata_without_end_is_refused(
    callers: Callers, local: LocalPlatform, domain: str
) -> None:
    rpc = next(name for name in RPCS if name.startswith(f"{domain}."))
    method = METHODS[rpc]
    path = f"/{method.containing_service.full_name}/{method.name}"
    bearer = ("authorization", f"Bearer {callers.token('admin')}")
    many = tuple((f"x-many-{number}", "x" * 1000) for number in range(64))
    async with grpc.aio.insecure_channel(callers.grpc_address(domain)) as channel:
        call: Any = channel.unary_unary(path)
        for message, metadata in ((b"\x0a" * (1024 * 1024 + 1), (bearer,)), (b"", (bearer, *many))):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(message, metadata=metadata, timeout=20)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as nested:
            await call(b"\x0b" * 100_000, metadata=(bearer,), timeout=20)  # groups within groups
        assert nested.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "protobuf" not in str(nested.value.details())
