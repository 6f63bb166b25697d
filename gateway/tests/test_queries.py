"""Queries are as strict as bodies: what is not known, or said twice, is refused by name."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import httpx
import pytest

from gateway.app import create_app
from gateway.routing import ApiRoute
from gateway.settings import Settings
from gateway.tests.conftest import BOSS, assert_problem
from gateway.tests.fakes import HEX

ROUTES = [route for route in create_app(Settings()).routes if isinstance(route, ApiRoute)]
PREFIXES = {"dead_letter_id": "dlq", "product_id": "prd", "notification_id": "ntf", "address_id": "adr"}


def address(route: ApiRoute) -> tuple[str, str]:
    """Method and path, with ids in it."""

    def an_id(found: re.Match[str]) -> str:
        return f"{PREFIXES.get(found[1], found[1][:3])}_{HEX}"

    return next(iter(route.methods or ())), re.sub(r"\{(\w+)\}", an_id, route.path)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
async def test_a_parameter_that_a_route_does_not_know_is_refused_by_name(
    api: httpx.AsyncClient, route: ApiRoute
) -> None:
    method, path = address(route)
    for query in ("event_type=a", "event_type", "%65vent_type=&event_type=b"):
        answer = await api.request(method, f"{path}?{query}", headers=BOSS)
        problem = assert_problem(answer, 400, "INVALID_ARGUMENT")
        assert problem["errors"] == [{"field": "event_type", "message": "is not a known parameter"}], query


WITH_PARAMETERS = [route for route in ROUTES if route.dependant.query_params]


@pytest.mark.parametrize("route", WITH_PARAMETERS, ids=lambda route: route.name)
async def test_a_parameter_that_is_given_twice_is_refused_by_name(api: httpx.AsyncClient, route: ApiRoute) -> None:
    method, path = address(route)
    for field in route.dependant.query_params:
        query = urlencode([(field.alias, "1"), (field.alias, "1")])
        problem = assert_problem(await api.request(method, f"{path}?{query}", headers=BOSS), 400, "INVALID_ARGUMENT")
        assert problem["errors"] == [{"field": field.alias, "message": "must be given once"}]


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/start.js"])
async def test_pages_take_no_parameters(api: httpx.AsyncClient, path: str) -> None:
    assert_problem(await api.get(f"{path}?version=1"), 400, "INVALID_ARGUMENT")


async def test_who_calls_is_asked_before_what_for(api: httpx.AsyncClient) -> None:
    assert_problem(await api.get("/v1/admin/users?nothing=1"), 401, "TOKEN_MISSING")
