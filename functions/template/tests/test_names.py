"""Names of a new service, and what follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from functions.template import catalog, shared
from functions.template.__main__ import CATALOG, new, remove
from functions.template.names import NameRefused, Names, checked_entity, checked_name, entity_of, prefix_of

ROOT = Path(__file__).parents[3]
SOURCE = (ROOT / CATALOG).read_text()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "lower-case letters"),
        ("Inventory", "lower-case letters"),
        ("stock-levels", "neither - nor _"),
        ("stock_levels", "neither - nor _"),
        ("2nd", "a letter first"),
        ("../orders", "lower-case letters"),
        ("lager\u00e4", "lower-case letters"),
        ("x" * 31, "1 to 30"),
        ("class", "reserved"),
        ("runtime", "reserved"),
        ("broker", "reserved"),
        ("ordersevents", "reserved"),
    ],
)
def test_a_name_that_would_not_do_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(NameRefused, match=why):
        checked_name(name)


def test_a_service_that_is_there_is_not_written_over() -> None:
    with pytest.raises(NameRefused, match="there is such a service already, in functions/orders"):
        new(ROOT, "orders", "")


def test_a_service_that_others_use_is_not_taken_away() -> None:
    with pytest.raises(NameRefused, match=r"still used; change first\n  [a-z/_.\n ]*gateway/clients\.py"):
        remove(ROOT, "payments")
    with pytest.raises(NameRefused, match="there is no functions/nowhere"):
        remove(ROOT, "nowhere")


@pytest.mark.parametrize(
    ("name", "entity"),
    [
        ("reviews", "review"),
        ("categories", "category"),
        ("inventory", "inventory_item"),
        ("status", "status_item"),
        ("gas", "gas_item"),
    ],
)
def test_a_service_keeps_the_singular_of_its_name_or_items(name: str, entity: str) -> None:
    assert entity_of(name) == entity


@pytest.mark.parametrize(
    "entity",
    [
        "",
        "Review",
        "a__b",
        "service",
        "entity_mapping",
        "idempotency_record",
        "inventory",
        "inventory_service",
        "x" * 31,
    ],
)
def test_an_entity_that_would_not_do_is_refused(entity: str) -> None:
    with pytest.raises(NameRefused, match=f"ENTITY={entity}"):
        checked_entity(entity, "inventory", frozenset())


def test_an_event_that_is_in_the_catalogue_is_not_made_twice() -> None:
    with pytest.raises(NameRefused, match="has a ReviewCreated already"):
        checked_entity("review", "opinions", frozenset({"ReviewCreated"}))


def test_ids_begin_with_letters_that_no_other_service_uses() -> None:
    assert prefix_of("inventory_item", ROOT) == "inv"
    assert prefix_of("order_thing", ROOT) not in {"ord", "usr", "prd", "pay", "ref", "ntf", "adr", "ses"}


# Names that nobody's service has, so that these tests hold whatever was added.
ONE, OTHER = "teapots", "saucers"


def answers(name: str, number: int = 6) -> dict[str, str | int]:
    return Names(name, entity_of(name), "xyz", number).answers()


def test_what_is_put_into_the_catalogue_can_be_taken_out_in_any_order() -> None:
    one = catalog.with_service(SOURCE, answers(ONE))
    both = catalog.with_service(one, answers(OTHER))
    assert '    TeapotCreated: (),\n    SaucerCreated: (),\n    SweepDue: ("users",' in both
    assert catalog.without_service(both, OTHER) == one
    assert catalog.without_service(catalog.without_service(both, ONE), OTHER) == catalog.without_service(SOURCE, ONE)


def test_what_is_put_into_shared_files_can_be_taken_out_in_any_order() -> None:
    for first, second in zip(shared.additions(answers("kettles")), shared.additions(answers(OTHER, 7)), strict=True):
        before = (ROOT / first.file).read_text()
        both = second.added_to(first.added_to(before))
        assert second.taken_from(first.taken_from(both)) == before


def test_a_shared_file_that_is_not_as_expected_is_named() -> None:
    addition = shared.Addition("a.yaml", "  - mine\n", "  - gateway")
    with pytest.raises(shared.Unplaced, match=r"a\.yaml has no line that begins with `  - gateway`"):
        addition.added_to("resources:\n")
    with pytest.raises(shared.Unplaced, match=r"a\.yaml: take out by hand what begins with `- mine`"):
        addition.taken_from("  - gateway\n")
