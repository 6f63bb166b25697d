"""Header fields that come in several lines: lists are combined, what has one value is refused."""

from __future__ import annotations

import httpx
import msgspec
import pytest

from gateway.tests.conftest import CUSTOMER, assert_problem
from gateway.tests.fakes import ORDER, PRODUCT, USER, Backend
from gateway.tests.test_errors import new_order

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
Lines = list[tuple[str, str]]
WHO: Lines = list(CUSTOMER.items())


@pytest.mark.parametrize(("tags", "status"), [(['"7"', '"1"'], 304), (['"1"', '"7"'], 304), (['"7"', '"8"'], 200)])
async def test_every_line_of_if_none_match_counts(api: httpx.AsyncClient, tags: list[str], status: int) -> None:
    lines: Lines = [("if-none-match", tag) for tag in tags]
    first = await api.get(f"/v1/orders/{ORDER}", headers=CUSTOMER)
    lines = [(name, value.replace('"1"', first.headers["etag"])) for name, value in lines]
    answer = await api.get(f"/v1/orders/{ORDER}", headers=[*WHO, *lines])
    assert answer.status_code == status


async def test_every_line_of_if_match_counts(api: httpx.AsyncClient) -> None:
    first = await api.get("/v1/users/me", headers=CUSTOMER)
    for lines in (
        [("if-match", first.headers["etag"]), ("if-match", '"999"')],
        [("if-match", '"999"'), ("if-match", first.headers["etag"])],
    ):
        answer = await api.patch("/v1/users/me", headers=[*WHO, *lines], json={"name": "Ada"})
        assert answer.status_code == 200, answer.text


async def test_every_line_of_tracestate_travels_on(api: httpx.AsyncClient, backend: Backend) -> None:
    lines = [("traceparent", f"00-{TRACE}-{SPAN}-00"), ("tracestate", "a=1"), ("tracestate", "b=2")]
    await api.get(f"/v1/products/{PRODUCT}", headers=lines)
    assert TRACE in backend.metadata[-1]["traceparent"]
    assert backend.metadata[-1]["tracestate"] == "a=1, b=2"


async def test_two_traceparents_are_none(api: httpx.AsyncClient, backend: Backend) -> None:
    line = ("traceparent", f"00-{TRACE}-{SPAN}-00")
    await api.get(f"/v1/products/{PRODUCT}", headers=[line, line, ("tracestate", "a=1")])
    assert TRACE not in backend.metadata[-1]["traceparent"]
    assert "tracestate" not in backend.metadata[-1]


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(
    "name",
    ["Authorization", "Content-Type", "Host", "Idempotency-Key", "Last-Event-Id", "Origin", "X-Api-Key"],
)
async def test_what_has_one_value_must_not_come_twice(
    api: httpx.AsyncClient, backend: Backend, name: str, same: bool
) -> None:
    values = {"Authorization": f"Bearer user:{USER}", "Content-Type": "application/json", "Host": "shop.test"}
    value = values.get(name, "one")
    lines: Lines = [(key, each) for key, each in values.items() if key != name]
    lines += [(name, value), (name, value if same else "another")]
    answer = await api.post("/v1/orders", headers=lines, content=msgspec.json.encode(new_order()))
    problem = assert_problem(answer, 400, "INVALID_ARGUMENT")
    assert problem["errors"] == [{"field": name, "message": "must be given once"}]
    assert backend.calls == []


async def test_fields_that_nobody_reads_may_come_as_often_as_they_like(api: httpx.AsyncClient) -> None:
    answer = await api.get(f"/v1/products/{PRODUCT}", headers=[("x-anything", "1"), ("x-anything", "2")])
    assert answer.status_code == 200
