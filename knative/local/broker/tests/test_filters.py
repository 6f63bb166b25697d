"""A trigger's filters, table by table."""

from __future__ import annotations

from typing import Any

import pytest

from knative.local.broker.filters import FilterError, compile_filters, event_types

EVENT = {
    "id": "1",
    "source": "/orders",
    "type": "shop.order.placed.v1",
    "specversion": "1.0",
    "subject": "ord_1",
    "tier": "gold",
    "empty": "",
}
EXACT = {"exact": {"type": "shop.order.placed.v1"}}
OTHER = {"exact": {"type": "other"}}


@pytest.mark.parametrize(
    ("spec", "passes"),
    [
        ({}, True),
        ({"filter": {}}, True),
        ({"filter": {"attributes": {}}}, True),
        ({"filter": {"attributes": {"type": "shop.order.placed.v1"}}}, True),
        ({"filter": {"attributes": {"type": "shop.order"}}}, False),
        ({"filter": {"attributes": {"type": "shop.order.placed.v1", "tier": "gold"}}}, True),
        ({"filter": {"attributes": {"type": "shop.order.placed.v1", "tier": "silver"}}}, False),
        ({"filter": {"attributes": {"tier": ""}}}, True),
        ({"filter": {"attributes": {"absent": ""}}}, False),
        ({"filter": {"attributes": {"empty": ""}}}, False),
        ({"filters": []}, True),
        ({"filters": [EXACT]}, True),
        ({"filters": [EXACT, OTHER]}, False),
        ({"filters": [{"exact": {"type": "shop.order.placed.v1", "tier": "gold"}}]}, True),
        ({"filters": [{"exact": {"type": "shop.order.placed.v1", "tier": "silver"}}]}, False),
        ({"filters": [{"exact": {"absent": "x"}}]}, False),
        ({"filters": [{"prefix": {"type": "shop."}}]}, True),
        ({"filters": [{"prefix": {"type": "order"}}]}, False),
        ({"filters": [{"prefix": {"absent": "x"}}]}, False),
        ({"filters": [{"suffix": {"type": ".v1"}}]}, True),
        ({"filters": [{"suffix": {"type": ".v2"}}]}, False),
        ({"filters": [{"all": [EXACT, {"prefix": {"source": "/"}}]}]}, True),
        ({"filters": [{"all": [EXACT, OTHER]}]}, False),
        ({"filters": [{"any": [OTHER, EXACT]}]}, True),
        ({"filters": [{"any": [OTHER, OTHER]}]}, False),
        ({"filters": [{"not": OTHER}]}, True),
        ({"filters": [{"not": EXACT}]}, False),
        ({"filters": [{"not": {"any": [OTHER, {"all": [EXACT, {"not": OTHER}]}]}}]}, False),
        # filters win over filter
        ({"filter": {"attributes": {"type": "other"}}, "filters": [EXACT]}, True),
        ({"filter": {"attributes": {"type": "shop.order.placed.v1"}}, "filters": [OTHER]}, False),
    ],
)
def test_an_event_passes_as_in_knative(spec: dict[str, Any], passes: bool) -> None:
    compiled = compile_filters(spec)
    assert (compiled is None or compiled(EVENT)) is passes


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"filters": [{"cesql": "type = 'x'"}]}, "unknown dialect 'cesql'"),
        ({"filters": [{"any": [{"not": {"sql": "x"}}]}]}, "unknown dialect 'sql'"),
        ({"filters": [{}]}, "one dialect"),
        ({"filters": [{**EXACT, "prefix": {"type": "a"}}]}, "one dialect"),
        ({"filters": {"exact": {}}}, "a list is expected"),
        ({"filters": [{"exact": {"Type": "x"}}]}, "no attribute name"),
        ({"filters": [{"exact": {"type": ""}}]}, "an empty value"),
        ({"filters": [{"exact": {"type": 1}}]}, "a string is expected"),
        ({"filters": [{"exact": "type"}]}, "a mapping is expected"),
        ({"filter": {"attributes": {"a-b": "x"}}}, "no attribute name"),
    ],
)
def test_a_filter_that_cannot_be_honoured_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        compile_filters(spec)


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ({}, ()),
        ({"filter": {"attributes": {"tier": "gold"}}}, ()),
        ({"filter": {"attributes": {"type": ""}}}, ()),
        ({"filter": {"attributes": {"type": "a", "tier": "gold"}}}, ("a",)),
        ({"filters": [{"exact": {"type": "a"}}], "filter": {"attributes": {"type": "b"}}}, ("a",)),
        ({"filters": [{"any": [{"exact": {"type": "a"}}, {"exact": {"type": "b"}}]}]}, ("a", "b")),
        ({"filters": [{"any": [{"exact": {"type": "a"}}, {"exact": {"type": "a"}}]}]}, ("a",)),
        ({"filters": [{"any": [{"exact": {"type": "a"}}, {"prefix": {"type": "b"}}]}]}, ()),
        ({"filters": [{"any": [{"exact": {"type": "a"}}, {"exact": {"tier": "gold"}}]}]}, ()),
        ({"filters": [{"prefix": {"type": "a"}}, {"exact": {"type": "a.b", "tier": "gold"}}]}, ("a.b",)),
        ({"filters": [{"not": {"exact": {"type": "a"}}}]}, ()),
    ],
)
def test_the_types_of_a_trigger_are_known_where_its_filters_name_them(
    spec: dict[str, Any], types: tuple[str, ...]
) -> None:
    compile_filters(spec)
    assert event_types(spec) == types
