"""Readability of a text for a model, judged by how its tokenizer splits the words.

A model knows the words that its vocabulary was made from. It meets other languages as unknown
tokens, single letters or bytes, or as fragments of words that mean nothing to it; its vectors then
tell texts apart poorly, and a ranking by them does harm. The share of a text's letters in words
that the tokenizer represents in whole words or long pieces is a measure of this that needs neither
a list of languages nor a run of the model: English prose has .98 with an English WordPiece
vocabulary, English documentation with code .9, Spanish .66, German .5, Turkish .3, Russian 0
(docs/decisions/retrieval.md has more).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tokenizers import Encoding, Tokenizer

from raglan.readability import HAN, LETTERS_A_WORD, NO_WORDS, SYLLABLES, WORD, Readability

_LETTERS_A_PIECE: Final = (2.0, 3.5)
"""Letters that the pieces of a word have on average where they carry no meaning, and where they
carry as much as those of English words do."""

_LETTERS_A_PIECE_MULTILINGUAL: Final = (1.0, 1.75)
"""The same for a vocabulary that many languages share: their words are cut into shorter pieces,
which the model has learnt nevertheless."""

_MULTILINGUAL_SCRIPTS: Final = 3
_MULTILINGUAL_TOKENS: Final = 200
"""A vocabulary is multilingual with so many tokens of two letters or more in each of so many
scripts other than Latin. The English one of BERT has 8 in Cyrillic and 4 in Greek, Qwen's has
thousands in seven scripts."""

_SYLLABLE_LETTERS: Final = 2
"""Letters that a syllabic character (kana, Hangul) counts for."""

_SCRIPTS: Final = re.compile(
    "|".join(
        f"(?P<{name}>[{letters}]{{2}})"
        for name, letters in {
            "greek": "\u0370-\u03ff",
            "cyrillic": "\u0400-\u052f",
            "hebrew": "\u0590-\u05ff",
            "arabic": "\u0600-\u06ff",
            "indic": "\u0900-\u0dff",
            "thai": "\u0e00-\u0eff",
            "georgian": "\u10a0-\u10ff",
            "han": HAN,
            "syllables": SYLLABLES,
        }.items()
    )
)
"""Two letters of one script."""

_Token = tuple[int, int, bool]
"""Start and end of a token in characters, and true for the unknown token."""


class ReadabilityMeter:
    """Measures texts by one model's tokenizer. May be used from any thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Look through the vocabulary; takes up to a second for 250,000 tokens."""
        model = json.loads(tokenizer.to_str())["model"]
        unknown = model.get("unk_token")
        self._unknown_id = (
            model.get("unk_id") if unknown is None else tokenizer.token_to_id(unknown)
        )
        multilingual = _is_multilingual(tokenizer)
        self._pieces = _LETTERS_A_PIECE_MULTILINGUAL if multilingual else _LETTERS_A_PIECE

    def measure(self, text: str, encoding: Encoding, *, start: int = 0) -> Readability:
        """Measure how well the model reads `text`, as far as `encoding` covers it.

        Args:
            text: What was tokenised, a prompt included.
            encoding: Its tokens with their offsets.
            start: Characters of the prompt, which do not count.
        """
        tokens = [
            (begin, end, token == self._unknown_id)
            for token, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if end > max(begin, start)
        ]
        if not tokens:
            return NO_WORDS
        letters = read = words = 0.0
        first = 0
        for word in WORD.finditer(text, start, tokens[-1][1]):
            begin, end = word.span()
            while first < len(tokens) and tokens[first][1] <= begin:
                first += 1
            last = first
            while last < len(tokens) and tokens[last][0] < end:
                last += 1
            length = end - begin
            letters += length
            read += length * self._share_read(word, tokens[first:last])
            words += length / LETTERS_A_WORD if word.lastgroup else 1
        return Readability(read / letters, words) if letters else NO_WORDS

    def _share_read(self, word: re.Match[str], tokens: Sequence[_Token]) -> float:
        """Return the share of `word` that its tokens represent, in [0, 1]."""
        if word.lastgroup == "han":
            return _share_of_han(word, tokens)
        if not tokens or any(unknown for _, _, unknown in tokens):
            return 0.0
        if len(tokens) == 1:
            return 1.0
        letters = word.end() - word.start()
        if word.lastgroup == "syllables":
            letters *= _SYLLABLE_LETTERS
        low, high = self._pieces
        return min(1.0, max(0.0, (letters / len(tokens) - low) / (high - low)))


def _is_multilingual(tokenizer: Tokenizer) -> bool:
    """Return whether the vocabulary has long tokens in several scripts other than Latin."""
    ids = [[id_] for id_ in range(tokenizer.get_vocab_size())]
    found: Counter[str] = Counter()
    for token in tokenizer.decode_batch(ids, skip_special_tokens=True):
        if match := _SCRIPTS.search(token):
            found[str(match.lastgroup)] += 1
    return sum(count >= _MULTILINGUAL_TOKENS for count in found.values()) >= _MULTILINGUAL_SCRIPTS


def _share_of_han(word: re.Match[str], tokens: Sequence[_Token]) -> float:
    """Chinese words have two characters on average, and both must be known.

    A character is known when one token represents it, alone or with others; tokens that share a
    character are its bytes.
    """
    spans = [(begin, end) for begin, end, _ in tokens]
    known = 0
    for number, (begin, end, unknown) in enumerate(tokens):
        around = spans[max(0, number - 1) : number] + spans[number + 1 : number + 2]
        if not unknown and all(end <= other[0] or other[1] <= begin for other in around):
            known += min(end, word.end()) - max(begin, word.start())
    return (known / (word.end() - word.start())) ** 2
