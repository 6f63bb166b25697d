"""The words of a product, and a small set of index keys that find the product by any prefix of its words.

The index needs only the listing of partitions, which DynamoDB also supports. An entry for every prefix of every word is
not possible: a description of 5,000 characters has thousands of prefixes, and a transaction has at most 100 items. A
text therefore has at most `MAX_KEYS` keys, in one of two schemes. A short text (most are short) has the first three,
five and seven letters of each word as keys, so that a rare word is found at once in any catalogue. A long text has the
first three letters of each word as keys. If there are too many of these, some are shortened to two, one or no letters.

For each word of the query, a search looks up the key of short texts and the four keys that a long text may have
instead. It then compares the words themselves, so that it returns exactly the matches. A long text only needs more
comparisons.

In scripts without spaces between words (Chinese, Japanese, Korean, Thai, ...) a match may begin anywhere in a run of
characters. There the keys are all sequences of two characters (three in Thai and similar scripts).
"""

from __future__ import annotations

from collections.abc import Iterable

from functions.products.search.folding import fold, gram, runs

MAX_KEYS = 40
"""An update replaces at most all keys, which takes 80 of the 100 items of a DynamoDB transaction."""
MAX_TERMS = 4
"""Maximum number of words of a query that are looked up in the index. More would make the statement longer and hardly
reduce the result.
"""

_LENGTHS = (3, 5, 7)  # the lengths of a short text's keys
_EARLIER = (3, 5, 8)  # the lengths of the keys of texts that were folded by version 1
# Distinguishes the three-letter keys of short texts from those of long texts. No word contains it.
_SHORT = "+"
_PRECISE = 3
_ANY = "*"  # the key with no letters; no word contains it
_IDEOGRAPH = 3  # one ideograph is as selective as three letters


def words(text: str) -> list[str]:
    """Return the distinct folded words in order. In a script without spaces, each run of its characters is a word."""
    return list(dict.fromkeys(runs(fold(text))))


def searchable(*texts: str) -> str:
    """Return the words of `texts`, each with a space before it, as `matches` expects them."""
    return "".join(f" {word}" for word in words("\n".join(texts)))


def matches(text: str, prefixes: Iterable[str]) -> bool:
    """Return whether each prefix begins a word of `text`, which is a result of `searchable`.

    A prefix in a script without spaces may occur anywhere in a word.
    """
    return all(part_of_text(prefix) in text for prefix in prefixes)


def part_of_text(prefix: str) -> str:
    """Return the string that a text of `searchable` contains if it matches this prefix."""
    return prefix if gram(prefix) else f" {prefix}"


def keys(text: str) -> set[str]:
    """Return the index keys of `text` (a result of `searchable`), at most `MAX_KEYS`.

    Words of fewer than three letters have no keys.
    """
    found = [part for word in text.split() for part in _parts(word)]
    fine = {_fine(part[:n]) for part in found for n in _lengths(part) if len(part) >= n}
    return fine if len(fine) <= MAX_KEYS else _coarse(found)


def terms(prefixes: Iterable[str], *, earlier: bool) -> list[list[str]]:
    """Return alternative keys for each of the `MAX_TERMS` most selective prefixes.

    A text with these prefixes has at least one key of each list. With `earlier`, this is also true of texts that were
    folded by earlier rules. Prefixes of fewer than three letters are omitted. They are in so many texts that keys
    would not save any work.
    """
    ordered = sorted(prefixes, key=_selectivity, reverse=True)
    return [found for prefix in ordered if (found := _alternatives(prefix, earlier))][:MAX_TERMS]


def _alternatives(prefix: str, earlier: bool) -> list[str]:
    if len(prefix) < _lengths(prefix)[0]:
        return []
    schemes = [_lengths(prefix), *([_EARLIER] if earlier and not gram(prefix) else [])]
    fine = [_fine(prefix[: max(length for length in lengths if length <= len(prefix))]) for lengths in schemes]
    coarse = (prefix[:length] or _ANY for length in range(_lengths(prefix)[0], -1, -1))
    return list(dict.fromkeys([*fine, *coarse]))


def _parts(word: str) -> list[str]:
    """Return the beginnings of possible matches: the word, or all sequences of `gram` characters if it is unspaced."""
    if (size := gram(word)) == 0:
        return [word]
    return [word[start : start + size] for start in range(len(word) - size + 1)]


def _lengths(word: str) -> tuple[int, ...]:
    return (size,) if (size := gram(word)) else _LENGTHS


def _selectivity(word: str) -> int:
    return len(word) * (_IDEOGRAPH if gram(word) == 2 else 1)


def _fine(beginning: str) -> str:
    return beginning + _SHORT if len(beginning) == _PRECISE else beginning


def _coarse(found: Iterable[str]) -> set[str]:
    keys = {word[: _lengths(word)[0]] for word in found if len(word) >= _lengths(word)[0]}
    for length in range(_PRECISE - 1, -1, -1):
        keys = _coarsened(keys, length)
    return {key or _ANY for key in keys}


def _coarsened(found: set[str], length: int) -> set[str]:
    """Merge keys that share their first `length` letters, largest group first, until at most `MAX_KEYS` are left."""
    families: dict[str, set[str]] = {}
    for key in found:
        families.setdefault(key[:length], set()).add(key)
    result = set(found)
    for prefix, family in sorted(families.items(), key=lambda item: (-len(item[1]), item[0])):
        surplus = len(result) - MAX_KEYS
        if surplus <= 0 or len(family) == 1:
            break
        # Merge one key more than the surplus, because the merged key is added. The other keys stay precise.
        result -= set(sorted(family)[: surplus + 1])
        result.add(prefix)
    return result
