"""What a line of text is."""

from __future__ import annotations

import pytest

from functions.runtime.text import TextError, check_text, clean_line

NAMES = {
    "an ideographic space": "山田　太郎",
    "a no-break space": "Jean\u00a0Valjean",
    "a joiner that Persian needs": "می‌خواهم",
    "an emoji of several": "Ada 👩‍💻",
    "a flag of tags": "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "right to left": "דוד בן־גוריון",
    "a mark of direction": "דוד\u200f.",
    "an ideograph of a later Unicode": "\U0002ebf0\U000323b0田",
    "an apostrophe": "D’Artagnan O'Neill-Łódź",
    "one ideograph": "李",
}
REFUSED = {
    "nothing": "",
    "spaces only": " \u3000\u00a0 ",
    "zero width only": "\u200b\u200d\u2060",
    "a filler that is a letter": "\u3164",
    "halfwidth and jamo fillers": "\uffa0\u115f\u1160",
    "a braille blank": "\u2800\u2800",
    "a mark on nothing": "\u0301",
    "variation selectors only": "\ufe0f\ufe0f",
    "too long": "x" * 101,
    "a megabyte": "x" * 1_000_000,
    "a line break": "Ada\r\nBcc: x",
    "a null": "Ada\x00",
    "a C1 control": "Ada\x85da",
    "a line separator": "A\u2028da",
    "a paragraph separator": "A\u2029da",
    "an override": "Ada \u202egnp.exe",
    "an isolate": "Ada \u2066x\u2069",
    "an embedding": "\u202aAda\u202c",
    "a surrogate": "Ada\ud800",
    "an unassigned code point": "Ada\u0378",
    "a noncharacter": "Ada\ufffe",
    "a noncharacter beyond the first plane": "Ada\U0002ffff",
    "private use": "Ada\ue000",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_line_is_kept_as_people_write_it(name: str) -> None:
    assert clean_line(name, 100) == name


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_seen_or_forges_its_surroundings_is_no_line(text: str) -> None:
    with pytest.raises(TextError, match=r"^must "):
        clean_line(text, 100)


def test_spaces_around_are_dropped_and_letters_composed() -> None:
    assert clean_line("\u3000 Zoe\u0308 \n", 4) == "Zoë"


def test_a_line_may_be_empty_where_it_is_optional() -> None:
    assert clean_line(" ", 10, 0) == ""


def test_lengths_are_those_of_the_composed_text() -> None:
    assert len(clean_line("e\u0301" * 100, 100)) == 100


@pytest.mark.parametrize("text", ["", "Two\r\nlines,\ta tab", "日本語　説明"])
def test_text_may_have_several_lines(text: str) -> None:
    check_text(text, 100)


@pytest.mark.parametrize("text", ["x" * 101, "a\x0bb", "a\u202eb", "a\ud800b", "a\u0378b", "a\u2028b"])
def test_text_is_bounded_and_shows_what_it_holds(text: str) -> None:
    with pytest.raises(TextError):
        check_text(text, 100)
