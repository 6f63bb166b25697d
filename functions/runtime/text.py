"""Validation of text, for every domain and the gateway.

The rules follow PRECIS (RFC 8264, FreeformClass): control characters, unassigned code points and characters that
reorder the text around them are refused; spaces and joiners that a script needs are kept.
"""

from __future__ import annotations

import re
import unicodedata

# Refused Unicode categories: control, surrogate, private use, line separator, paragraph separator.
_REFUSED = frozenset({"Cc", "Cs", "Co", "Zl", "Zp"})
# Embeddings, overrides and isolates reorder the text around them; interlinear annotations hide text.
_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]")
_KEPT_CONTROLS = frozenset("\t\n\r")
# Unicode adds ideographs to these planes each year, and names contain them. They count as letters, even if Python's
# version of Unicode does not have them yet.
_IDEOGRAPHIC_PLANES = range(0x20000, 0x3FFFE)
_LAST_TWO = 0xFFFE  # the last two code points of each plane are noncharacters
# Letters, digits, punctuation and symbols are visible, except for the following characters.
_INK = frozenset("LNPS")
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc\U0001d159")


class TextError(ValueError):
    """The text is invalid. The message says what would be valid, and is worded to follow the name of the field."""


def clean_line(text: str, longest: int, shortest: int = 1) -> str:
    """Return one line of text in NFC, without leading and trailing spaces.

    Spaces inside the line are kept, including ideographic spaces. Lengths are in characters of the result.

    Raises:
        TextError: for a wrong length, a line break, control character, unassigned code point or bidirectional
            override, or if no character is visible.
    """
    # NFC shortens a text to no less than a third, so a much longer text is refused without being normalised.
    line = unicodedata.normalize("NFC", text.strip()) if len(text) <= 4 * longest + 64 else text
    if not shortest <= len(line) <= longest:
        raise TextError(f"must have {shortest} to {longest} characters")
    if line and not (line.isascii() and line.isprintable()):
        _check(line, frozenset())
        if not any(map(_shows, line)):
            raise TextError("must have something that can be seen")
    return line


def check_text(text: str, longest: int) -> None:
    """Check text of several lines, which may have tabs and line breaks.

    Raises:
        TextError: the text is longer than `longest` characters, or has a character that `clean_line` refuses.
    """
    if len(text) > longest:
        raise TextError(f"must have at most {longest} characters")
    if not (text.isascii() and text.isprintable()):
        _check(text, _KEPT_CONTROLS)


def _check(text: str, kept: frozenset[str]) -> None:
    for char in text:
        if char.isprintable() or char in kept:
            continue
        category = unicodedata.category(char)
        if category in _REFUSED:
            raise TextError("must not have line breaks or control characters")
        if category == "Cn" and not _is_ideograph(ord(char)):
            raise TextError("must not have characters that Unicode does not assign")
    if _REORDERING.search(text):
        raise TextError("must not have characters that change the direction of the text around them")


def _is_ideograph(code: int) -> bool:
    return code in _IDEOGRAPHIC_PLANES and code & 0xFFFF < _LAST_TWO


def _shows(char: str) -> bool:
    code = ord(char)
    return (unicodedata.category(char)[0] in _INK and char not in _BLANK) or _is_ideograph(code)
