"""Types that the requests and responses of all domains share.

Requests are pydantic models that refuse unknown fields. Responses are TypedDicts: the type checker verifies that the
code returns the documented form, the OpenAPI document is generated from them, and a response costs one JSON encoding
and no validation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from operator import attrgetter
from typing import Annotated, Any, NotRequired, TypeVar, cast

from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function
from typing_extensions import TypedDict

from functions.runtime.formats import MAX_PRICE, MAX_TOTAL, MIN_PRICE
from functions.runtime.messages import value_names
from functions.runtime.text import check_text, clean_line
from proto.shop.money.v1 import money_pb2

T = TypeVar("T")

MAX_COUNT = 2**31 - 1
MAX_VERSION = 2**53 - 1  # JSON numbers are exact up to here

LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"
TEXT = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"


class Body(BaseModel):
    """A request body. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Text:
    """Metadata of a string field that is checked by `functions.runtime.text`, the platform's definition of text.

    The OpenAPI document shows those of its rules that a schema can express.
    """

    clean: Callable[[str], str]
    shortest: int
    longest: int
    pattern: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Clean the value after pydantic has checked that it is a string."""
        return no_info_after_validator_function(self.clean, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Document the length and the form."""
        bounds = {"maxLength": self.longest, "pattern": self.pattern}
        return {**handler(schema), **({"minLength": self.shortest} if self.shortest else {}), **bounds}


def line(longest: int, shortest: int = 1) -> Text:
    """Return the metadata of one line of text. Surrounding spaces do not count."""
    return Text(partial(clean_line, longest=longest, shortest=shortest), shortest, longest, LINE)


def text(longest: int) -> Text:
    """Return the metadata of text of several lines."""

    def clean(given: str) -> str:
        check_text(given, longest)
        return given

    return Text(clean, 0, longest, TEXT)


Int = Annotated[int, Strict()]
Bool = Annotated[bool, Strict()]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2.", examples=["DE"])]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217.", examples=["EUR"])]
Moment = Annotated[datetime, Field(description="RFC 3339, UTC.", examples=["2030-01-01T12:00:00.000001Z"])]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Version = Annotated[
    int,
    Field(
        ge=0,
        le=MAX_VERSION,
        description="Increases with every change (0: never changed); the ETag contains it.",
        examples=[1],
    ),
]


def _upper_snake(words: str) -> str:
    return re.sub(r"^[^A-Z]+|[^A-Z0-9]+", "_", words.upper()).strip("_")[:64]


# People send free text. It is converted to UPPER_SNAKE, because timelines and events contain stable reasons. Text
# without a letter from A to Z counts as absent.
Reason = Annotated[
    str,
    line(200, shortest=0),
    AfterValidator(_upper_snake),
    Field(
        description="A short reason, stored in UPPER_SNAKE: `changed my mind` as CHANGED_MY_MIND.",
        examples=["CHANGED_MY_MIND"],
    ),
]


def identifier(prefix: str, what: str) -> Any:
    """Return the field information of an id in a response."""
    return Field(description=f"{what}.", examples=[f"{prefix}_0190b5a4c1de7c0f8a31d94e5b7c2f60"])


class MoneyIn(Body):
    """An amount of money."""

    amount: Annotated[Int, Field(ge=1, le=MAX_TOTAL, description="Minor units, such as cents.", examples=[1999])]
    currency: Currency

    def to_proto(self) -> money_pb2.Money:
        """Return the amount as a protobuf message."""
        return money_pb2.Money(amount=self.amount, currency=self.currency)


class PriceIn(MoneyIn):
    """The price of one piece; 0 for a free product."""

    amount: Annotated[
        Int, Field(ge=MIN_PRICE, le=MAX_PRICE, description="Minor units, such as cents.", examples=[1999])
    ]


class Money(TypedDict):
    """An amount of money."""

    amount: Annotated[int, Field(ge=0, le=MAX_TOTAL, description="Minor units, such as cents.", examples=[1999])]
    currency: Currency


NextCursor = Annotated[
    str | None, Field(description="The `cursor` of the next page; null on the last page.", examples=["MDE5MGI1YTQ"])
]


def moment(stamp: Timestamp) -> datetime:
    """Return a timestamp as an aware datetime in UTC, with microseconds."""
    return datetime.fromtimestamp(stamp.seconds, UTC).replace(microsecond=stamp.nanos // 1000)


def view(form: type[T], message: Any, **given: Any) -> T:
    """Return a message in the API's `form`, a TypedDict: its fields of the same names, and those in `given`.

    A timestamp becomes an aware datetime (None if it is not set), an enumeration's value its name, and a message an
    object of all its fields.
    """
    read = _readers(message.DESCRIPTOR)
    shown = {name: given[name] if name in given else read[name](message) for name in form.__annotations__}
    return cast(T, shown)


@cache
def _readers(descriptor: Any) -> dict[str, Callable[[Any], Any]]:
    return {field.name: _reader(field) for field in descriptor.fields}


def _reader(field: Any) -> Callable[[Any], Any]:
    """Return the function that reads this field of a message as the API shows it."""
    get, name = attrgetter(field.name), field.name
    if field.enum_type is not None:
        show: Callable[[Any], Any] = value_names(field.enum_type).__getitem__
    elif field.message_type is None:
        return (lambda message: list(get(message))) if field.is_repeated else get
    elif field.message_type is Timestamp.DESCRIPTOR:
        return lambda message: moment(get(message)) if message.HasField(name) else None
    else:
        inner = _readers(field.message_type)

        def show(message: Any) -> Any:
            return {key: read(message) for key, read in inner.items()}

    return (lambda message: list(map(show, get(message)))) if field.is_repeated else lambda message: show(get(message))


class FieldProblem(TypedDict):
    """One invalid field."""

    field: Annotated[str, Field(description="Path of the field in the request.", examples=["lines[0].quantity"])]
    message: Annotated[str, Field(description="What a valid value is.", examples=["must be at least 1"])]


class Problem(TypedDict):
    """The problem details (RFC 9457) of an error response."""

    type: Annotated[str, Field(description="Stable, derived from the reason.", examples=["/problems/order-not-found"])]
    title: Annotated[str, Field(description="The same for every occurrence.", examples=["Order not found"])]
    status: Annotated[int, Field(ge=400, le=599, description="The HTTP status.", examples=[404])]
    detail: Annotated[str, Field(description="Describes this occurrence, for people.", examples=["Order not found."])]
    code: Annotated[str, Field(description="A gRPC code.", examples=["NOT_FOUND"])]
    reason: Annotated[str, Field(description="A stable reason, for programs.", examples=["ORDER_NOT_FOUND"])]
    correlation_id: Annotated[
        str, Field(description="For support requests.", examples=["8f14e45fceea167a5a36dedd4bea2543"])
    ]
    errors: list[FieldProblem]
    expected_total: NotRequired[Annotated[Money, Field(description="With PRICE_CHANGED: the expected total.")]]
    total: NotRequired[Annotated[Money, Field(description="With PRICE_CHANGED: the current total.")]]
