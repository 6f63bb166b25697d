"""Responses for administrators only: dead letters, in the form that the dead-letter sink returns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from gateway.models.common import Count, NextCursor, identifier

_FAILED_AT = Field(description="RFC 3339, UTC.", examples=["2030-01-01T12:00:00.000Z"])


DeadLetterStatus = TypeAliasType(
    "DeadLetterStatus",
    Annotated[Literal["pending", "replayed"], Field(description="Whether it was replayed.")],
)


class DeadLetter(TypedDict):
    """An event that could not be delivered."""

    id: Annotated[str, identifier("dlq", "The dead letter")]
    status: DeadLetterStatus
    type: Annotated[str, Field(description="The event's type.", examples=["shop.order.placed.v1"])]
    event_id: Annotated[str, Field(examples=["0190b5a4-c1de-7c0f-8a31-d94e5b7c2f60"])]
    source: Annotated[str, Field(examples=["/orders"])]
    subject: Annotated[str | None, Field(examples=["ord_0190b5a4c1de7c0f8a31d94e5b7c2f60"])]
    correlation_id: Annotated[str | None, Field(examples=["8f14e45fceea167a5a36dedd4bea2543"])]
    trigger: Annotated[
        str | None,
        Field(
            description="The trigger whose delivery failed, if the broker named it.", examples=["shop/products-events"]
        ),
    ]
    possible_triggers: Annotated[
        list[str],
        Field(
            description="All triggers of the event's type, if the broker did not name the one whose delivery failed.",
            examples=[["products-events"]],
        ),
    ]
    destination: Annotated[str | None, Field(examples=["http://products-events.shop.svc.cluster.local"])]
    error_code: Annotated[Count | None, Field(description="HTTP status of the subscriber's response.", examples=[503])]
    error: Annotated[
        str,
        Field(
            description="Body of the subscriber's response, or the error if there was none.", examples=["unavailable"]
        ),
    ]
    failures: Annotated[Count, Field(description="How often its delivery was given up.", examples=[1])]
    attempts: Annotated[
        Count | None, Field(description="Total number of delivery attempts; null if unknown.", examples=[6])
    ]
    first_failed_at: Annotated[str, _FAILED_AT]
    last_failed_at: Annotated[str, _FAILED_AT]
    replayed_at: Annotated[str | None, _FAILED_AT]


class WholeDeadLetter(DeadLetter):
    """An event that could not be delivered, with its content."""

    event: Annotated[
        dict[str, Any],
        Field(
            description="The CloudEvent in JSON.",
            examples=[{"specversion": "1.0", "id": "0190b5a4", "source": "/orders", "type": "shop.order.placed.v1"}],
        ),
    ]


class DeadLetterPage(TypedDict):
    """Dead letters, newest first."""

    items: list[DeadLetter]
    next_cursor: NextCursor


class Discarded(TypedDict):
    """The result of discarding several dead letters."""

    discarded: Annotated[Count, Field(description="Number of discarded dead letters.", examples=[3])]


class Replayed(TypedDict):
    """The result of replaying several dead letters."""

    replayed: Annotated[Count, Field(description="Number of events that were published again.", examples=[3])]
    failed: Annotated[
        Count, Field(description="Number of events that the broker refused; they stay pending.", examples=[0])
    ]
