"""Text as the terms that it is found by: one analysis for index, query, extraction and support.

A term is a stemmed word without case, or an identifier. Both sides of a comparison go through
`terms`, so what it folds (width, ligatures, soft hyphens, case) need not be folded elsewhere.
An identifier has several terms: itself and its parts.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Set
from functools import cache, lru_cache
from importlib import resources
from typing import Final

import Stemmer

from raglan.characters import UNSPACED, WORD, fold_accents, normalise
from raglan.segmentation import segments

ANALYSIS: Final = 1
"""Version of the analysis. Raise it when the terms of a text change: an index of the older terms
no longer matches a query of the newer ones."""

_STEMMERS: Final = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek",
    "en": "english", "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque",
    "fa": "persian", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi",
    "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian",
    "ne": "nepali", "nl": "dutch", "no": "norwegian", "pl": "polish", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "sr": "serbian", "st": "sesotho", "sv": "swedish",
    "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
"""Snowball's algorithm for each ISO 639-1 code."""

_JOINED: Final = r"(?:[-_./:@&'\\]|::|://|_{2,4}|(?<=\d),(?=\d))"
"""Joints of a compound: max_batch_tokens, v1.2.3, a/path.md, std::vector, 1,000."""


def _tokens_of(word: str) -> str:
    # C++ and C# end in signs.
    return rf"[{word}]+(?:{_JOINED}[{word}]+)*(?:(?:\+\+|\#)(?![{word}]))?"


_ASCII_TOKEN: Final = re.compile(_tokens_of("A-Za-z0-9"))
_TOKEN: Final = re.compile(f"[{UNSPACED}]+|{_tokens_of(WORD)}")
_CODE: Final = re.compile("[a-z]{2}")
_JOINERS: Final = re.compile(r"[-_./:@&\\,]+")
_NUMBER: Final = re.compile(r"\d+(?:[.,:]\d+)*")
_GROUPED: Final = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_VERSION: Final = re.compile(r"v\d+(?:\.\d+)+")
_INITIALS: Final = re.compile(r"\w(?:\.\w)+")
_PLURAL_ACRONYM: Final = re.compile("[A-Z]{2,}s")
_CAMEL: Final = re.compile(r"[a-z\d][A-Z]|[A-Z]{2}[a-z]{2}")
_HUMPS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^A-Za-z\d]+")
_LETTERS_THEN_DIGITS: Final = re.compile(r"([^\W\d_]{2,})(\d{2,})")
_DASH_BETWEEN_DIGITS: Final = re.compile(r"(?<=\d)-(?=\d)")
_NO_WORD: Final = re.compile(rf"_|::|{_CAMEL.pattern}|[^\W\d_].*\d")
"""Marks of an identifier that no word has: max_batch_tokens, std::vector, getUserById, KX-88213."""

_SHORTEST_IDENTIFIER: Final = 4
"""Shorter ones have many meanings: A4, p53, v2."""

_MAX_TERM_CHARS: Final = 128
"""Longer words are cut: they are never typed, and one of 1 MB must not fill the index."""

_JOINED_BY_APOSTROPHE: Final = frozenset({"be", "uk"})
"""Languages in which an apostrophe is a letter inside a word."""

_FOLDED_FIRST: Final = frozenset({"en", ""})
"""Languages that have accents in foreign words only, which their stemmer does not know: resume."""

_TONAL: Final = frozenset({"vi"})
"""Languages in which most words differ by their accents alone: both forms are terms. Elsewhere two
forms of an accented word would count it twice, which costs .05 of Recall@1 in Turkish."""

_local = threading.local()


def terms(text: str, language: str = "", own: str = "") -> list[str]:
    """Analyse `text` into the terms that it is found by.

    Args:
        text: Any text; Markdown and code need no preparation.
        language: ISO 639-1 code, which decides stemmer and stop words; "" has neither.
        own: Language of `text` itself, where that is another one: its stop words are left out too.

    Returns:
        Terms in the order of the text, repeated as often as they occur, without stop words.
        Of an identifier first the whole, then its parts.
    """
    return _analyse(_content(text, own or language), language)


def query_terms(
    text: str, languages: Iterable[str], undivided: Set[str] = frozenset()
) -> list[str]:
    """Analyse a query so that it matches texts in any of `languages`.

    Args:
        text: the text to analyse.
        languages: ISO 639-1 codes; the first is the query's own, which decides its stop words.
        undivided: Those of its `identifiers` that have no parts.

    Returns:
        Distinct terms: those of the first language, then what the others add.
    """
    ordered = list(languages) or [""]
    tokens = _content(text, ordered[0])
    whole = [token for token in tokens if token in undivided]
    divided = [token for token in tokens if token not in undivided]
    found = [
        term
        for language in ordered
        for term in (*_wholes(whole, language), *_analyse(divided, language))
    ]
    return list(dict.fromkeys(found))


def identifiers(text: str) -> list[str]:
    """The distinct names in `text` that are no words of a language, as they are written.

    Codes, keys of a configuration, names of functions and the like: what has a digit after a
    letter, an underscore or a capital inside. Versions and numbers are none.
    """
    return list(dict.fromkeys(filter(is_identifier, _tokens(text))))


def is_identifier(token: str) -> bool:
    """Return whether one token of a text is such a name; see `identifiers`."""
    return (
        _SHORTEST_IDENTIFIER <= len(token) <= _MAX_TERM_CHARS
        and _NO_WORD.search(token) is not None
        and not _is_unspaced(token)
        and not any(
            form.fullmatch(token) for form in (_VERSION, _INITIALS, _PLURAL_ACRONYM, _NUMBER)
        )
        and "'" not in token
    )


def whole_terms(identifier: str, languages: Iterable[str]) -> list[str]:
    """The term of `identifier` as a whole, in the analysis of each language."""
    return list(dict.fromkeys(term for each in languages for term in _wholes([identifier], each)))


def _wholes(tokens: Iterable[str], language: str) -> Iterator[str]:
    for token in tokens:
        yield from _analyse([token], language)[:1]


def words(text: str) -> list[str]:
    """Split `text` into words, casefolded and without accents, stop words included, unstemmed.

    Unlike `terms`, an identifier yields its parts only.
    """
    return [
        fold_accents(part.casefold())
        for token in _tokens(text)
        for part in (segments(token) if _is_unspaced(token) else _parts(token))
    ]


def _tokens(text: str) -> list[str]:
    pattern = _ASCII_TOKEN if text.isascii() else _TOKEN
    return pattern.findall(normalise(text))


def language_code(name: str) -> str:
    """The ISO 639-1 code of a language by its code or English name: "de", "german".

    Raises:
        ValueError: `name` is neither; the message says what is known.
    """
    wanted = name.strip().lower()
    by_name = {algorithm: code for code, algorithm in _STEMMERS.items()}
    code = by_name.get(wanted, wanted)
    if not _CODE.fullmatch(code):
        raise ValueError(
            f"{name!r} is no language: use an ISO 639-1 code such as en, or one of "
            f"{', '.join(sorted(by_name))}."
        )
    return code


def _content(text: str, language: str) -> list[str]:
    """The tokens of `text` without stop words; one in capitals that is a word stays."""
    tokens = _tokens(text)
    stop_words = _stop_words(language)
    if not stop_words:
        return tokens
    return [
        token
        for position, token in enumerate(tokens)
        if token.lower() not in stop_words or (token.isupper() and _is_acronym(tokens, position))
    ]


def _analyse(tokens: list[str], language: str) -> list[str]:
    found: list[str] = []
    stop_words = _stop_words(language)
    for token in tokens:
        if token.isupper() and token.lower() in stop_words:
            found.append(token.lower())
            continue
        if len(token) <= _MAX_TERM_CHARS:
            found.extend(_terms_of(token, language))
        else:
            # Long ones are rare and would fill the cache.
            found.extend(term[:_MAX_TERM_CHARS] for term in _terms_of.__wrapped__(token, language))
    return found


def is_stop_word(word: str, language: str) -> bool:
    """Return whether `word`, casefolded, is a function word of `language`."""
    return word in _stop_words(language)


def stem(word: str, language: str) -> str:
    """The stem of `word`, casefolded; `word` itself where there is no stemmer for `language`."""
    algorithm = _STEMMERS.get(language)
    if algorithm is None:
        return word
    stemmers: dict[str, Stemmer.Stemmer] = _local.__dict__.setdefault("stemmers", {})
    if algorithm not in stemmers:
        # One a thread: a stemmer must not be shared. Results are cached here, not there.
        stemmers[algorithm] = Stemmer.Stemmer(algorithm, 0)
    found: str = stemmers[algorithm].stemWord(word)
    return found


@lru_cache(maxsize=50_000)
def _terms_of(token: str, language: str) -> tuple[str, ...]:
    if _is_unspaced(token):
        return tuple(segments(token))
    if _PLURAL_ACRONYM.fullmatch(token):
        return (token[:-1].lower(),)
    if token.isalpha() and not _CAMEL.search(token):
        return tuple(_forms(_lower(token, language), language))
    if _NUMBER.fullmatch(token):
        return (token.replace(",", "") if _GROUPED.fullmatch(token) else token,)
    if _INITIALS.fullmatch(token) and not token.isdecimal():
        return (token.replace(".", "").lower(),)
    if "'" in token:
        return tuple(_around_apostrophes(token, language))
    return tuple(dict.fromkeys(_identifier(token, language)))


def _forms(word: str, language: str) -> Iterator[str]:
    """The term of a casefolded word, if it is no stop word: its stem without accents."""
    word = word[:_MAX_TERM_CHARS]
    if word in _stop_words(language):
        return
    if language in _FOLDED_FIRST:
        word = fold_accents(word)
    stemmed = stem(word, language)
    plain = fold_accents(stemmed)
    yield plain
    if plain != stemmed and language in _TONAL:
        yield stemmed


def _identifier(token: str, language: str) -> Iterator[str]:
    whole = _lower(token, language)
    if _VERSION.fullmatch(whole):
        yield from (whole, whole[1:])
        return
    # max_batch_tokens, maxBatchTokens and max-batch-tokens are one name; 10-20 is not 1020.
    joined = "-".join(
        side.replace("-", "").replace("_", "") for side in _DASH_BETWEEN_DIGITS.split(whole)
    )
    if len(joined) <= _MAX_TERM_CHARS:
        yield stem(joined, language) if joined.isalpha() else joined
    steps = [step for step in re.split(r"[/\\]+", token) if step]
    if len(steps) > 1:
        for step in steps:
            yield from _terms_of.__wrapped__(step, language)
        return
    for part in _parts(token):
        yield from _forms(_lower(part, language), language)


def _parts(token: str) -> Iterator[str]:
    """The words and numbers that a name is made of."""
    if _NUMBER.fullmatch(token):
        yield token
        return
    for piece in _JOINERS.split(token.replace("'", "-").rstrip("+#")):
        for hump in _HUMPS.findall(piece) if _CAMEL.search(piece) else [piece]:
            if not hump:
                continue
            split = _LETTERS_THEN_DIGITS.fullmatch(hump)
            yield from split.groups() if split else (hump,)


def _around_apostrophes(token: str, language: str) -> Iterator[str]:
    """Terms of Rollo's, l'homme, O'Brien, İstanbul'da: the pieces that carry meaning."""
    pieces = [piece for piece in token.split("'") if piece]
    if language in _JOINED_BY_APOSTROPHE:
        yield from _terms_of("".join(pieces), language)
        return
    if language == "tr":
        yield from _terms_of(pieces[0], language)
        return
    if len(pieces[0]) == 1 and pieces[0].isupper():
        yield "".join(pieces).lower()
    for piece in pieces:
        if len(piece) > 2 or len(pieces) == 1 or piece.isdecimal():
            yield from _terms_of(piece, language)


def _is_acronym(tokens: list[str], position: int) -> bool:
    """Return whether the stop word in capitals at `position` is a word: IT, WHO, US.

    It is not where everything around it is in capitals as well, nor if it is a single letter.
    """
    if len(tokens[position]) < 2:
        return False
    around = tokens[max(0, position - 3) : position + 4]
    return len(tokens) <= 2 or any(not token.isupper() and token.isalpha() for token in around)


def _lower(token: str, language: str) -> str:
    if language in {"tr", "az"}:
        token = token.replace("I", "\u0131").replace("\u0130", "i")
    return token.casefold().replace("i\u0307", "i")


_FIRST_UNSPACED: Final = re.compile(rf"[{UNSPACED}]")


def _is_unspaced(token: str) -> bool:
    return _FIRST_UNSPACED.match(token) is not None


@cache
def _stop_words(language: str) -> frozenset[str]:
    return _all_stop_words().get(language, frozenset())


@cache
def _all_stop_words() -> dict[str, frozenset[str]]:
    text = resources.files("raglan").joinpath("stop_words.txt").read_text(encoding="utf-8")
    lists: dict[str, frozenset[str]] = {}
    for section in text.split("\n[")[1:]:
        language, _, listed = section.partition("]")
        lists[language] = frozenset(listed.split())
    return lists
