"""Folding of texts for search: words that differ only in case, width or accent become equal.

Folding follows Unicode's NFKC_Casefold. For marks it follows the practice of UCA-based search: accents on Latin, Greek
or Cyrillic letters are ignored, but the voicing marks of kana and the vowel signs of Devanagari or Thai are kept.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

VERSION = 2
"""The version of the rules, stored with each text. Increase it when `fold`, `runs` or `keys` change, so that the sweep
folds stored texts again."""

_ALPHABETIC_END = "\u0530"  # Latin, Greek, Cyrillic and their marks have lower code points
# Separate letters of their alphabets, whose mark is not an accent: Cyrillic short i and short u, Ukrainian yi.
_OWN_LETTERS = frozenset({"и\u0306", "у\u0306", "і\u0308"})
# Vowel points and signs that most Hebrew and Arabic texts omit, and the Arabic elongation stroke (tatweel).
_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]")
_NAMED = re.compile(
    r"LATIN SMALL (?:LETTER|LIGATURE) (?:([A-Z])(?: WITH .*)?|(AE|OE|OU|AA|AO|AU|AV|AY|OO|TH))(?: WITH .*)?"
)
_OTHERS = {"ð": "d", "þ": "th", "ı": "i", "ŋ": "n", "ĸ": "k", "ə": "e", "ی": "ي", "ک": "ك", "ى": "ي"}
_KATAKANA = {code: code - 0x60 for code in range(0x30A1, 0x30F7)}

# Scripts without spaces between words, grouped by the number of characters that identify a word: two for ideographs,
# kana and Hangul syllables; three for the letters of Thai, Lao, Myanmar, Khmer and others.
_TWO = (
    r"\u1100-\u11ff\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa"
    r"\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff"
    r"\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003fffd"
)
_THREE = r"\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aad\ua980-\ua9ff\uaa60-\uaa7f"
_TWO_CHAR, _THREE_CHAR = re.compile(f"[{_TWO}]"), re.compile(f"[{_THREE}]")


def gram(word: str) -> int:
    """Return how many characters identify a word in the script of `word`; 0 for a script with spaces."""
    if word.isascii():
        return 0
    return 2 if _TWO_CHAR.match(word) else 3 if _THREE_CHAR.match(word) else 0


def fold(text: str) -> str:
    """Return the text with differences of case, width, accent and kind of kana (hiragana, katakana) removed."""
    if text.isascii():
        return text.casefold()
    # Fold case after decomposing, which may produce capitals. Decompose again, because folding may produce marks.
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    letters: list[str] = []
    base = ""
    for char in decomposed:
        if not unicodedata.combining(char):
            base = char
        elif base < _ALPHABETIC_END and base + char not in _OWN_LETTERS:
            continue
        letters.append(char if char.isascii() else _plain(char))
    composed = unicodedata.normalize("NFC", _POINTS.sub("", "".join(letters)))
    return composed.translate(_KATAKANA)


def runs(text: str) -> list[str]:
    """Return the words of a folded text. In a script without spaces, each run of characters counts as a word."""
    found: list[str] = []
    last: int | None = None
    for char in text:
        category = unicodedata.category(char)
        if category[0] not in "LMN" or (category[0] == "M" and last is None):
            last = None
            continue
        kind = last if category[0] == "M" and last is not None else gram(char)
        if kind == last:
            found[-1] += char
        else:
            found.append(char)
        last = kind
    return found


@lru_cache(maxsize=4096)
def _plain(char: str) -> str:
    """Return the basic letters of a letter that Unicode does not decompose, such as ł, ø, đ and æ."""
    if known := _OTHERS.get(char):
        return known
    named = _NAMED.fullmatch(unicodedata.name(char, ""))
    return (named[1] or named[2]).lower() if named else char
