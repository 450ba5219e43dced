"""Tokens of texts for a server that keeps its tokenizer: estimated, or counted by a copy of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from raglan.errors import InvalidInput
from raglan.token_estimate import estimate_tokens

from raglan_generator.language_model import Message, Rendered

_MESSAGE_TOKENS: Final = 8
"""At most, of a chat template around one message: `<|start_header_id|>user<|end_header_id|>`,
two newlines, `<|eot_id|>` are 5 or 6."""
_TEMPLATE_TOKENS: Final = 48
"""At most, once: Llama 3.1 writes two dates, 30 tokens, and where the answer begins 4."""

_MARGIN: Final = 1.1


class EstimatedTokenizer:
    """Estimates tokens from letters; see `raglan.token_estimate`.

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
        return int(estimate_tokens(text) * _MARGIN) + 1

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
