"""Text to token ids, safely from several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from tokenizers import Encoding, Tokenizer

from raglan.encoders.readability import ReadabilityMeter
from raglan.errors import InvalidInput
from raglan.readability import Readability

_MEASURED_CHARS: Final = 1_000

_CHARS_A_TOKEN: Final = 16
_MARGIN_TOKENS: Final = 16
"""Of a long text so many characters for each token that the model reads are tokenised, and more
where that is not enough: 5.5 MB of text took 7 s as a whole. The margin, because a cut may change
the tokens beside it."""

Strategy = Literal["longest_first", "only_first", "only_second"]


class Tokenizers:
    """The tokenizer of one model; each thread works on a clone of its own.

    A shared one fails with "Already borrowed" as soon as two threads meet in it.
    """

    def __init__(self, folder: Path, max_tokens: int, prompts: Iterable[str] = ()) -> None:
        """Read `tokenizer.json`.

        Args:
            folder: a model folder.
            max_tokens: tokens of a text that are read, special tokens included.
            prompts: what will stand before texts.

        Raises:
            InvalidInput: a prompt leaves no room for a text; cutting would cut the prompt.
        """
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.special_tokens: int = tokenizer.num_special_tokens_to_add(False)
        """Tokens that every text gets around it."""
        for prompt in prompts:
            if (needs := len(tokenizer.encode(prompt).ids)) >= max_tokens:
                raise InvalidInput(
                    f"The prompt {prompt!r} takes {needs} tokens; the model reads {max_tokens} in "
                    "all. Shorten the prompt, or raise the limit on tokens."
                )
        self._max_tokens = max_tokens
        self._clones = _Clones(tokenizer, max_tokens, "longest_first")
        self._meter = ReadabilityMeter(tokenizer)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut at the end to `max_tokens`."""
        own = self._clones.own()
        return [
            each.encoding.ids for each in _starts(own.encode_batch_fast, texts, self._max_tokens)
        ]

    def read(self, texts: Sequence[str], *, start: int = 0) -> list[ReadText]:
        """Tokenise like `ids`, with the share of each text that is read and its readability.

        Of a text much longer than the model reads, the number of tokens that are cut is estimated
        from those of its beginning.

        Args:
            texts: in the order of the result.
            start: Characters of the prompt before each text, which do not count as text.
        """
        read = []
        for text, begun in zip(
            texts, _starts(self._clones.own().encode_batch, texts, self._max_tokens), strict=True
        ):
            encoding = begun.encoding
            rest = (len(text) - begun.chars) * _length(encoding) // max(begun.chars, 1)
            truncated = _overflow(encoding) + max(rest, 0)
            readability = self._meter.measure(text, encoding, start=start)
            read.append(ReadText(encoding.ids, truncated, readability))
        return read

    def count(self, text: str) -> int:
        """Tokens of `text`, special tokens left out, cut at `max_tokens`."""
        return len(self._clones.own().encode(text, add_special_tokens=False).ids) if text else 0

    def located(
        self, texts: Sequence[str], *, start: int = 0, measured: int = 0
    ) -> list[LocatedIds]:
        """Tokenise like `ids`, with each token's offset and the text's readability.

        Args:
            texts: in the order of the result.
            start: Characters of the prompt before each text, which do not count as text.
            measured: Texts, from the first, whose readability is measured (0.3 ms each).
        """
        begun = _starts(self._clones.own().encode_batch, texts, self._max_tokens)
        encoded = [each.encoding for each in begun]
        return [
            LocatedIds(
                each.ids,
                [
                    -1 if special else begin
                    for special, (begin, _) in zip(
                        each.special_tokens_mask, each.offsets, strict=True
                    )
                ],
                self._meter.measure(text, each, start=start) if number < measured else None,
            )
            for number, (text, each) in enumerate(zip(texts, encoded, strict=True))
        ]


class ReadText(NamedTuple):
    """A text's tokens, and what the model makes of the text."""

    ids: list[int]
    truncated: int
    """Tokens beyond the model's limit."""
    readability: Readability


class LocatedIds(NamedTuple):
    """A text's tokens and their places."""

    ids: list[int]
    starts: list[int]
    """In characters; -1 for special tokens, which stand nowhere."""
    readability: Readability | None = None
    """None where it was not measured."""


class PairIds(NamedTuple):
    """A query and a passage as a cross-encoder reads them."""

    ids: list[int]
    types: list[int]
    """For each token, 0 in the query and 1 in the passage; all 0 for models without segments."""


class PairTokenizers:
    """The tokenizer of one cross-encoder; each thread works on a clone of its own.

    Args:
        max_tokens: of query and passage together, special tokens included.
        passage_tokens: of the passage; 0 means all that there is room for.
    """

    def __init__(self, folder: Path, max_tokens: int, *, passage_tokens: int = 0) -> None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._max_tokens = max_tokens
        self._passage_tokens = passage_tokens or max_tokens
        self._special_tokens: int = tokenizer.num_special_tokens_to_add(True)
        self._whole = _Clones(tokenizer, None, "only_second")
        self._cutting = _Clones(tokenizer, max_tokens, "only_second")
        self._meter = ReadabilityMeter(tokenizer)

    def readability(self, text: str) -> Readability:
        """Measure how well the model reads the beginning of `text`."""
        text = text[:_MEASURED_CHARS]
        return self._meter.measure(text, self._whole.own().encode(text))

    def pairs(self, query: str, passages: Sequence[str]) -> list[PairIds]:
        """Ids of `query` with each passage; what is too long is cut at the end of the passage.

        Raises:
            InvalidInput: the query alone leaves no room for a passage.
        """
        length = len(self._whole.own().encode(query, add_special_tokens=False).ids)
        if length + self._special_tokens >= self._max_tokens:
            raise InvalidInput(
                f"query takes {length} tokens; the model reads {self._max_tokens} of query and "
                f"passage together, {self._special_tokens} of them special. Shorten the query."
            )
        most = min(self._max_tokens, length + self._special_tokens + self._passage_tokens)
        own = self._cutting.own()
        own.enable_truncation(most, strategy="only_second")

        def encode(texts: list[str]) -> list[Encoding]:
            return own.encode_batch_fast([(query, text) for text in texts])

        begun = _starts(encode, passages, most)
        return [PairIds(each.encoding.ids, each.encoding.type_ids) for each in begun]


def first_ids(tokenizer: Tokenizer, texts: Sequence[str], tokens: int) -> list[list[int]]:
    """At most `tokens` ids of the beginning of each text, without special ones."""

    def encode(texts: list[str]) -> list[Encoding]:
        return tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    return [each.encoding.ids[:tokens] for each in _starts(encode, texts, tokens)]


class _Begun(NamedTuple):
    """The beginning of a text in tokens."""

    encoding: Encoding
    chars: int
    """Of the text, that were tokenised."""


def _starts(
    encode: Callable[[list[str]], list[Encoding]], texts: Sequence[str], max_tokens: int
) -> list[_Begun]:
    """Cut each text to what fills `max_tokens`; the remainder adds no cost."""
    most = _CHARS_A_TOKEN * (max_tokens + _MARGIN_TOKENS)
    encodings = encode([text[:most] for text in texts])
    begun = []
    for text, encoding in zip(texts, encodings, strict=True):
        chars = most
        while chars < len(text) and _length(encoding) < max_tokens + _MARGIN_TOKENS:
            chars *= 4
            (encoding,) = encode([text[:chars]])
        begun.append(_Begun(encoding, min(chars, len(text))))
    return begun


def _length(encoding: Encoding) -> int:
    return len(encoding.ids) + _overflow(encoding)


def _overflow(encoding: Encoding) -> int:
    """Tokens of it that were cut off."""
    return sum(len(rest.ids) - sum(rest.special_tokens_mask) for rest in encoding.overflowing)


class _Clones:
    """One copy of a tokenizer a thread, its truncation set once: `max_tokens` None cuts nothing."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int | None, strategy: Strategy) -> None:
        if max_tokens is not None:
            tokenizer.enable_truncation(max_tokens, strategy=strategy)
        self._source = tokenizer.to_str()
        # Made here, where it may take a second, for the event loop that comes first.
        self._spare = [Tokenizer.from_str(self._source)]
        self._local = threading.local()

    def own(self) -> Tokenizer:
        """The calling thread's."""
        tokenizer: Tokenizer | None = getattr(self._local, "tokenizer", None)
        if tokenizer is None:
            try:
                tokenizer = self._spare.pop()
            except IndexError:
                tokenizer = Tokenizer.from_str(self._source)
            self._local.tokenizer = tokenizer
        return tokenizer
