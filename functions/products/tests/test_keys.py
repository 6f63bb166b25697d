from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.products.search.folding import gram
from functions.products.search.keys import MAX_KEYS, MAX_TERMS, keys, matches, searchable, terms, words

ANY_TEXT = st.text(max_size=5000)
MANY_WORDS = st.lists(st.text("abcdefghijklmnopqrstuvwxyzäéßł日本語ハパ한국ภาษ", max_size=12), max_size=800).map(
    " ".join
)


def test_words_lose_case_accents_and_punctuation() -> None:
    assert words("Crème-Brûlée, STRASSE straße! №5 ﬁsh") == ["creme", "brulee", "strasse", "no5", "fish"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Łódź", "lodz"),
        ("Søren Kierkegård", "soren kierkegard"),
        ("Đorđe", "dorde"),
        ("Straße", "STRASSE"),
        ("Ærø, œuvre", "aero oeuvre"),
        ("İstanbul", "istanbul"),
        ("ISTANBUL", "ıstanbul"),
        ("Þór", "thor"),
        ("Ħamrun", "hamrun"),
        ("Αθήνα", "αθηνα"),
        ("ΣΟΦΟΣ", "σοφός"),
        ("Ёлка", "елка"),
        ("ﾊﾟﾊﾟ", "パパ"),
        ("パパ", "ぱぱ"),
        ("ＵＳＢ", "usb"),
        ("شَمْس", "شمس"),
        ("שָׁלוֹם", "שלום"),
        ("हिन्दी", "हिन्दी"),
        ("Cafe\u0301", "café"),
        ("母の日のカーネーション", "カーネーション"),
        ("母の日のカーネーション", "母の日"),
        ("コーヒーミル", "ミル"),
        ("电动咖啡机", "咖啡"),
        ("電動咖啡機", "咖啡機"),
        ("김치냉장고", "냉장고"),
        ("กาแฟเย็น", "เย็น"),
        ("USBケーブル", "ケーブル"),
        ("日本茶", "茶"),
    ],
)
def test_a_word_is_found_however_it_is_written(text: str, query: str) -> None:
    whole = searchable(text)
    assert matches(whole, words(query))
    assert all(keys(whole) & set(term) for term in terms(words(query), earlier=False))


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("ハハの日", "パパ"),
        ("ババ", "パパ"),
        ("かき", "がき"),
        ("हिन्दी", "हन्दी"),
        ("йод", "иод"),
        ("กาแฟ", "กแฟ"),
        ("Kettle", "ettle"),
        ("咖啡", "啡咖"),
    ],
)
def test_letters_of_their_own_are_not_folded(text: str, query: str) -> None:
    assert not matches(searchable(text), words(query))


def test_a_word_is_found_by_its_beginning_only() -> None:
    text = searchable("Steel kettle")

    assert matches(text, ["kett", "st"])
    assert not matches(text, ["ettle"])
    assert not matches(text, ["kettles"])


def test_a_short_text_is_found_by_three_letters_of_each_word_and_by_more() -> None:
    assert keys(searchable("A steel kettle, 2 l, stainless")) == {
        *("ste+", "steel", "ket+", "kettl", "sta+", "stain", "stainle")
    }


def test_a_search_looks_for_the_most_letters_of_each_word_that_are_keys() -> None:
    assert terms(["st", "kett"], earlier=True) == [["ket+", "ket", "ke", "k", "*"]]
    assert [term[0] for term in terms(["kettle", "stainlessly"], earlier=False)] == ["stainle", "kettl"]
    assert len(terms(["steel", "kettle", "with", "five", "words"], earlier=False)) == MAX_TERMS


@pytest.mark.parametrize(
    ("prefix", "fine"),
    [("stain", ["stain"]), ("stainle", ["stainle", "stain"]), ("stainless", ["stainle", "stainles"])],
)
def test_a_search_finds_texts_of_the_earlier_keys(prefix: str, fine: list[str]) -> None:
    assert terms([prefix], earlier=True) == [[*fine, "sta", "st", "s", "*"]]


def test_a_long_text_gives_up_as_little_as_it_must() -> None:
    text = searchable(*(f"{a}{b}{c}word" for a in "abc" for b in "de" for c in "fghijklm"))

    found = keys(text)

    assert len(found) == MAX_KEYS
    assert sum(len(key) == 3 for key in found) == MAX_KEYS - 2


@given(st.one_of(ANY_TEXT, MANY_WORDS), st.data())
def test_every_word_of_any_text_is_found_by_every_prefix(text: str, data: st.DataObject) -> None:
    whole = searchable(text)
    found = keys(whole)
    assert len(found) <= MAX_KEYS

    if not whole:
        return
    word = data.draw(st.sampled_from(words(text)))
    start = data.draw(st.integers(0, len(word) - 1)) if gram(word) else 0
    prefix = word[start : data.draw(st.integers(start + 1, len(word)))]
    assert matches(whole, [prefix])
    assert all(found & set(term) for term in terms([prefix], earlier=False))


@given(ANY_TEXT)
def test_words_of_words_are_the_same_words(text: str) -> None:
    assert words(" ".join(words(text))) == words(text)
