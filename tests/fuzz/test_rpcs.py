"""gRPC servers, fuzzed with messages of every method with any content, and with bytes that are no message."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, seed
from hypothesis import strategies as st

from tests.e2e.platform import LocalPlatform
from tests.fuzz.conftest import MINUTES, examples, rounds
from tests.security.callers import Callers, prepare
from tests.security.test_rpcs import METHODS

SECONDS = 15.0
EXAMPLES = 60 if MINUTES else 8
CALLERS = ("anonymous", "customer", "admin", "orders", "payments", "notifications")
OURS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
_texts = st.text(max_size=30) | st.sampled_from(
    ["", "\x00", "a" * 5000, "usr_" + "0" * 32, "../..", "' OR 1=1 --", "{}", "\u202e"]
)
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (0, 20),
}
_OTHERS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
}


def single(field: FieldDescriptor, ids: list[str]) -> st.SearchStrategy[Any]:
    """What fits one field; texts are often an id that is somebody's."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return messages(field.message_type, ids)
    if kind in _INTEGERS:
        return st.integers(*_INTEGERS[kind])
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return st.binary(max_size=30) if field.type == FieldDescriptor.TYPE_BYTES else st.sampled_from(ids) | _texts
    return _OTHERS[kind]


def messages(descriptor: Descriptor | None, ids: list[str]) -> st.SearchStrategy[Message]:
    """Messages of a type, each field set or not."""
    assert descriptor is not None
    kind: Any = message_factory.GetMessageClass(descriptor)
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field in descriptor.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        one = st.deferred(lambda field=field: single(field, ids))  # type: ignore[misc] # bound now
        fields[field.name] = st.lists(one, max_size=3) if field.is_repeated else one
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: kind(**values))


def attacks(callers: Callers, rpc: str) -> st.SearchStrategy[tuple[str, bytes]]:
    """(caller, what is sent)."""
    ids = [*callers.ids.values(), callers.people["admin"].email]
    whole = messages(METHODS[rpc].input_type, ids).map(lambda message: message.SerializeToString())
    cut = st.tuples(whole, st.integers(1, 10), st.binary(max_size=5)).map(lambda p: p[0][: -p[1]] + p[2])
    return st.tuples(st.sampled_from(CALLERS), whole | cut | st.binary(max_size=100))


async def ask(callers: Callers, rpc: str, caller: str, raw: bytes) -> grpc.StatusCode:
    """The status of one call."""
    method, token = METHODS[rpc], callers.token(caller, rpc.partition(".")[0])
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with (
        asyncio.timeout(SECONDS),
        grpc.aio.insecure_channel(callers.grpc_address(rpc.partition(".")[0])) as channel,
    ):
        kind: Any = channel.unary_stream if method.server_streaming else channel.unary_unary
        call = kind(f"/{method.containing_service.full_name}/{method.name}")(raw, metadata=metadata, timeout=SECONDS)
        try:
            await (call.read() if method.server_streaming else call)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def callers(platform: LocalPlatform) -> Callers:
    return asyncio.run(prepare(platform))


@pytest.mark.parametrize("rpc", METHODS)
def test_no_message_is_a_fault_of_the_service_that_it_is_sent_to(callers: Callers, rpc: str) -> None:
    for number in rounds(0.2 / len(METHODS)):

        @seed(number)
        @examples(EXAMPLES)
        @given(attacks(callers, rpc))
        def attack(sent: tuple[str, bytes]) -> None:
            caller, raw = sent
            assert asyncio.run(ask(callers, rpc, caller, raw)) not in OURS

        attack()
