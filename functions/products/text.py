"""Words of a product, and the few index keys by which all of them are found by any prefix.

The store lists partitions and no more, so that DynamoDB can do it, too. Writing every prefix of every word is
out of the question: a description of 5,000 characters has thousands, and a transaction may hold 100 items.
Instead a product has at most `MAX_KEYS` keys, of one of two sorts. A text with few words, as most have, lies under
the first three, five and eight letters of each word, so that what is rare is found at once in any catalogue. A longer
one lies under the first three letters of each word, or, where it has too many of those, under the first two, one or
none. A search reads the partition of its longest word among the former, and the four under which that word may lie
among the latter, and checks the words themselves. So nothing is ever missed, and what a long text costs is
selectivity, not entries.

Scripts that put no spaces between words (Chinese, Japanese, Korean, Thai, ...) are found anywhere in a run of
characters: a text lies under each two (Thai and its like: three) that follow one another.
"""

from __future__ import annotations

from collections.abc import Iterable

from functions.products.folding import fold, gram, runs

MAX_KEYS = 40
"""An update replaces at most all keys by as many others: 80 of the 100 items of a DynamoDB transaction."""

_LENGTHS = (3, 5, 8)  # of a short text's keys
_SHORT = (
    "+"  # marks a short text's keys of the first length, which long texts have, too; a word cannot hold it
)
_PRECISE = 3
_ANY = "*"  # the key of no letters; a word cannot hold it, either
_IDEOGRAPH = 3  # letters that tell as much


def words(text: str) -> list[str]:
    """Return the distinct words in order, folded; of an unspaced script, the runs of its characters."""
    return list(dict.fromkeys(runs(fold(text))))


def searchable(*texts: str) -> str:
    """The words of `texts`, each with a space before it, as `matches` wants them."""
    return "".join(f" {word}" for word in words("\n".join(texts)))


def matches(text: str, prefixes: Iterable[str]) -> bool:
    """Return whether each prefix begins a word of `text` (from `searchable`), or is within an unspaced one."""
    return all((prefix if gram(prefix) else f" {prefix}") in text for prefix in prefixes)


def keys(text: str) -> set[str]:
    """The partitions of a text (from `searchable`), at most `MAX_KEYS`; short words have none (`probes`)."""
    found = [part for word in text.split() for part in _parts(word)]
    fine = {_fine(part[:n]) for part in found for n in _lengths(part) if len(part) >= n}
    return fine if len(fine) <= MAX_KEYS else _coarse(found)


def probes(prefixes: Iterable[str]) -> list[str]:
    """The partitions that hold, together, every text with all these prefixes.

    Empty when no prefix has three letters: so little is in so many texts that listing them all is as quick.
    """
    longest = max(prefixes, key=_telling, default="")
    lengths = [length for length in _lengths(longest) if length <= len(longest)]
    if not lengths:
        return []
    coarse = (longest[:length] or _ANY for length in range(lengths[0], -1, -1))
    return list(dict.fromkeys([_fine(longest[: lengths[-1]]), *coarse]))


def _parts(word: str) -> list[str]:
    """Return what a search may begin with: the word, or each tail of an unspaced one."""
    if (size := gram(word)) == 0:
        return [word]
    return [word[start : start + size] for start in range(len(word) - size + 1)]


def _lengths(word: str) -> tuple[int, ...]:
    return (size,) if (size := gram(word)) else _LENGTHS


def _telling(word: str) -> int:
    return len(word) * (_IDEOGRAPH if gram(word) == 2 else 1)


def _fine(beginning: str) -> str:
    return beginning + _SHORT if len(beginning) == _PRECISE else beginning


def _coarse(found: Iterable[str]) -> set[str]:
    keys = {word[: _lengths(word)[0]] for word in found if len(word) >= _lengths(word)[0]}
    for length in range(_PRECISE - 1, -1, -1):
        keys = _coarsened(keys, length)
    return {key or _ANY for key in keys}


def _coarsened(found: set[str], length: int) -> set[str]:
    """Put keys that share their first `length` letters under one, largest family first, until few enough."""
    families: dict[str, set[str]] = {}
    for key in found:
        families.setdefault(key[:length], set()).add(key)
    result = set(found)
    for prefix, family in sorted(families.items(), key=lambda item: (-len(item[1]), item[0])):
        surplus = len(result) - MAX_KEYS
        if surplus <= 0 or len(family) == 1:
            break
        # One more than the surplus, for the key that takes their place; the rest stays precise.
        result -= set(sorted(family)[: surplus + 1])
        result.add(prefix)
    return result
