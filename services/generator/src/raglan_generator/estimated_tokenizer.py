"""Tokens of texts for a server that keeps its tokenizer: estimated, or counted by a copy of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from raglan.errors import InvalidInput

from raglan_generator.language_model import Message, Rendered

_MESSAGE_TOKENS: Final = 8
"""At most, of a chat template around one message: `<|start_header_id|>user<|end_header_id|>`,
two newlines, `<|eot_id|>` are 5 or 6."""
_TEMPLATE_TOKENS: Final = 48
"""At most, once: Llama 3.1 writes two dates, 30 tokens, and where the answer begins 4."""

_PIECE: Final = re.compile(
    r"""
    (?P<ascii>[a-zA-Z]+(?![\u00c0-\u024f]))      # a word of English
  | (?P<latin>[a-zA-Z\u00c0-\u024f]+)            # a word with accents
  | (?P<rare>[\U00010000-\U0010ffff])            # emoji
  | (?P<single>\S|\n)                            # a digit, a mark, a letter of another script
    """,
    re.VERBOSE,
)
_ASCII_TOKEN: Final = re.compile(r"[a-zA-Z]{1,4}|\S|\n")
"""What `_PIECE` counts as one token, in a text of ASCII alone."""
_MARGIN: Final = 1.1


class EstimatedTokenizer:
    """Estimates tokens from letters.

    Four letters of an English word a token, two of a word with accents, one of any other script,
    and each digit and mark one.

    Against the Mistral tokenizers of 32,000 and 131,000 tokens it is 1.1 to 1.5 times the larger
    count for English, German, Chinese, Japanese, Korean, code and JSON; see
    docs/decisions/prompt.md.
    """

    def __init__(self, max_model_len: int) -> None:
        self._max_model_len = max_model_len

    @property
    def max_model_len(self) -> int:
        """Tokens that prompt and answer have together."""
        return self._max_model_len

    def count(self, text: str) -> int:
        """Tokens of `text`, rather too many."""
        tokens = len(_ASCII_TOKEN.findall(text)) if text.isascii() else self._counted(text)
        return int(tokens * _MARGIN) + 1

    def _counted(self, text: str) -> int:
        tokens = 0
        for match in _PIECE.finditer(text):
            length = match.end() - match.start()
            if match.lastgroup == "ascii":
                tokens += -(-length // 4)
            elif match.lastgroup == "latin":
                tokens += -(-length // 2)
            else:
                tokens += 3 if match.lastgroup == "rare" else 1
        return tokens

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The count alone: the server writes the template."""
        return _rendered([self.count(message["content"]) for message in messages])


class FileTokenizer:
    """Counts by the model's own `tokenizer.json`; the server's chat template is estimated.

    Args:
        path: the file, or the folder it lies in.

    Raises:
        InvalidInput: there is none, or it cannot be read.
    """

    def __init__(self, path: str | Path, max_model_len: int) -> None:
        # Only here, because a service that estimates needs no tokenizers.
        from tokenizers import Tokenizer

        file = Path(path)
        file = file / "tokenizer.json" if file.is_dir() else file
        try:
            self._tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:  # noqa: BLE001  what the library raises is a bare Exception
            raise InvalidInput(
                f"No tokenizer could be read from {file} ({type(error).__name__}: {error}); "
                "name a tokenizer.json or the folder that holds it."
            ) from None
        # Set once: a tokenizer that is changed while another thread uses it fails.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_model_len = max_model_len

    @property
    def max_model_len(self) -> int:
        """Tokens that prompt and answer have together."""
        return self._max_model_len

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The count alone: the server writes the template."""
        return _rendered([self.count(message["content"]) for message in messages])


def _rendered(counts: Sequence[int]) -> Rendered:
    return Rendered(sum(counts) + _MESSAGE_TOKENS * len(counts) + _TEMPLATE_TOKENS)
