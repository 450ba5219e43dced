"""A Hugging Face tokenizer with the model's chat template, as the prompt needs it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from jinja2 import TemplateError
from raglan.errors import InvalidInput

from raglan_generator.language_model import Message, Rendered
from raglan_generator.thinking import OPENS_AT_END

_PROBE: Final = (
    Message(role="system", content="raglan-system"),
    Message(role="user", content="raglan-user"),
)


class Encoder(Protocol):
    """The part of `transformers.PreTrainedTokenizerBase` in use; vLLM's tokenizers share it."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the token ids of `text`."""
        ...

    def apply_chat_template(self, conversation: Any, /, **options: Any) -> Any:
        """Render a conversation by the model's template."""
        ...


class HuggingFaceTokenizer:
    """Renders by the model's chat template; a model without one gets a plain text.

    - A template that refuses system messages, or leaves them out, gets the system text at the
      beginning of the first user message.
    - The plain text is the messages one after the other, answers behind "Answer:".
    - The tokenizer's own control tokens in a message are broken up, so that they are read as text.

    One thread at a time: fast tokenizers that are shared fail ("Already borrowed"), and one takes
    a million tokens a second, more than a model reads.

    Args:
        tokenizer: no one else uses it from another thread.
        max_model_len: tokens that prompt and answer have together.
        template_options: for the chat template, e.g. {"enable_thinking": False}.
        reads_thinking: whether the text of an answer still holds its reasoning, so that it
            matters if the template opens a block of it.

    Raises:
        InvalidInput: the chat template takes no plain conversation.
    """

    def __init__(
        self,
        tokenizer: Encoder,
        max_model_len: int,
        *,
        template_options: Mapping[str, object] | None = None,
        reads_thinking: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_model_len = max_model_len
        self._options = dict(template_options or {})
        self._lock = threading.Lock()
        # Mistral's has no template that could be read, and writes conversations by itself.
        template = getattr(tokenizer, "chat_template", "")
        self._plain = template is None
        self._control = _control_pattern(tokenizer, template or "")
        self._fold = not self._plain and not self._takes_system()
        self._opens_thinking = reads_thinking and not self._plain and self._prompt_opens_thinking()

    @property
    def max_model_len(self) -> int:
        """Tokens that prompt and answer have together."""
        return self._max_model_len

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        with self._lock:
            return len(self._tokenizer.encode(text, add_special_tokens=False))

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The token ids of `messages`, up to where the answer begins."""
        safe = [
            Message(role=message["role"], content=self._broken_up(message["content"]))
            for message in messages
        ]
        with self._lock:
            if self._plain:
                # Begins as all text did in training: with the tokenizer's first token.
                ids = self._tokenizer.encode(plain(safe), add_special_tokens=True)
            else:
                ids = self._apply(_folded(safe) if self._fold else safe, tokenize=True)
        return Rendered(len(ids), tuple(ids), self._opens_thinking)

    def _apply(self, messages: Sequence[Message], *, tokenize: bool) -> Any:
        return self._tokenizer.apply_chat_template(
            list(messages),
            add_generation_prompt=True,
            tokenize=tokenize,
            return_dict=False,
            **self._options,
        )

    def _takes_system(self) -> bool:
        try:
            if _PROBE[0]["content"] in self._apply(_PROBE, tokenize=False):
                return True
        except TemplateError:
            pass
        try:
            self._apply(_folded(_PROBE), tokenize=False)
        except TemplateError as error:
            raise InvalidInput(
                f"The model's chat template refuses a message of a user: {error}. "
                "Serve a model whose template takes plain conversations."
            ) from error
        return False

    def _prompt_opens_thinking(self) -> bool:
        probe = _folded(_PROBE) if self._fold else _PROBE
        return bool(OPENS_AT_END.search(str(self._apply(probe, tokenize=False))))

    def _broken_up(self, text: str) -> str:
        if self._control is None:
            return text
        return self._control.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}", text)


def plain(messages: Sequence[Message]) -> str:
    """A prompt for a model that knows no chat: paragraphs, the last one "Answer:"."""
    parts = [
        f"Answer: {message['content']}" if message["role"] == "assistant" else message["content"]
        for message in messages
    ]
    return "\n\n".join([*parts, "Answer:"])


def _folded(messages: Sequence[Message]) -> list[Message]:
    if len(messages) < 2 or messages[0]["role"] != "system":
        return list(messages)
    system, first, *rest = messages
    content = f"{system['content']}\n\n{first['content']}"
    return [Message(role=first["role"], content=content), *rest]


def _control_pattern(tokenizer: Encoder, template: str) -> re.Pattern[str] | None:
    """The special tokens, and added ones that the template writes; None if there are none."""
    added: Iterable[Any] = getattr(tokenizer, "added_tokens_decoder", {}).values()
    texts = {
        token.content
        for token in added
        if len(token.content.strip()) > 1 and (token.special or token.content in template)
    }
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first))) if texts else None
