"""The frames of one chat completion, streamed or whole, as pieces of reasoning and of text.

Servers differ in what a frame holds: text as a string or as a list of parts, reasoning under three
names, half of an emoji, a whole message in place of a delta. What none of it explains is ignored;
only what is no completion at all is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from raglan.errors import RaglanError, Unavailable

from raglan_generator.engines import openai_errors
from raglan_generator.generation import FinishReason, Usage
from raglan_generator.language_model import End, Text, Thinking

_THINKING_FIELDS: Final = ("reasoning_content", "reasoning", "thinking", "reasoning_text")
"""vLLM, SGLang and DeepSeek; OpenRouter and newer vLLM; Ollama; Copilot."""

_LENGTH: Final = frozenset({"length", "max_tokens", "max_length", "model_length"})
_WITHHELD: Final = frozenset(
    {"content_filter", "safety", "refusal", "recitation", "prohibited_content", "blocklist", "spii"}
)
_FAILED: Final = frozenset(
    {"error", "abort", "aborted", "cancelled", "canceled", "insufficient_system_resource", "fail"}
)


class Completion:
    """Reads the frames of one answer.

    Args:
        secret: never repeated from what the server says.
    """

    def __init__(self, *, secret: str = "") -> None:
        self._secret = secret
        self._reason = ""
        self._usage: Usage | None = None
        self._withheld = False
        self._thinking = _Joined()
        self._text = _Joined()
        self.begun = False
        """True if the model has written anything, reasoning included."""

    @property
    def is_finished(self) -> bool:
        """Return whether the server has said why the answer ended."""
        return bool(self._reason)

    def done(self) -> None:
        """The server says that nothing follows: an answer without a reason has stopped."""
        self._reason = self._reason or "stop"

    def read_all(self, frames: list[str]) -> tuple[list[Text | Thinking], RaglanError | None]:
        """The pieces up to the first frame that is an error, and that error.

        Neighbouring pieces of a kind come as one, so that a reader who is behind catches up.
        """
        pieces: list[Text | Thinking] = []
        for frame in frames:
            try:
                found = list(self.read(frame))
            except RaglanError as error:
                return pieces, error
            for piece in found:
                if pieces and type(pieces[-1]) is type(piece):
                    last = pieces.pop()
                    piece = type(piece)(last.text + piece.text, last.tokens + piece.tokens)
                pieces.append(piece)
        return pieces, None

    def read(self, data: str) -> Iterator[Text | Thinking]:
        """The pieces in one frame.

        Raises:
            RaglanError: it is an error, or no chat completion.
        """
        try:
            frame = json.loads(data)
            if error := _error_in(frame):
                raise openai_errors.from_frame(error, secret=self._secret)
            if usage := frame.get("usage"):
                self._usage = _usage(usage) or self._usage
            choices = frame.get("choices") or ()
            thinking, text = "", ""
            for choice in choices:
                if choice.get("index") in (0, None):
                    more_thinking, more_text = self._read_choice(choice)
                    thinking, text = thinking + more_thinking, text + more_text
        except (ValueError, TypeError, AttributeError, KeyError):
            raise Unavailable(
                "The LLM server sent a frame that is no chat completion.", is_final=True
            ) from None
        if thinking := self._thinking.add(thinking):
            self.begun = True
            yield Thinking(thinking, 1)
        if text := self._text.add(text):
            self.begun = True
            yield Text(text, 1)

    def end(self) -> End:
        """The stream is over.

        Raises:
            Unavailable: it is, but the answer is not, or the server failed or kept it to itself.
        """
        reason = self._reason.casefold()
        if not reason:
            raise Unavailable(
                "The LLM server closed the stream before the end of the answer.", is_final=True
            )
        if reason in _FAILED:
            raise openai_errors.with_server_message(
                Unavailable("The LLM server failed while it was answering."),
                f"finish_reason is {self._reason}",
                secret=self._secret,
            )
        if reason in _WITHHELD or self._withheld:
            return End(FinishReason.CONTENT_FILTER, self._usage)
        return End(
            FinishReason.LENGTH if reason in _LENGTH else FinishReason.STOP,
            self._usage,
        )

    def _read_choice(self, choice: dict[str, Any]) -> tuple[str, str]:
        delta = choice.get("delta") or {}
        if not delta and not self.begun:
            # A whole message; behind deltas it repeats them.
            delta = choice.get("message") or {"content": choice.get("text")}
        if reason := choice.get("finish_reason"):
            self._reason = str(reason)
        self._withheld = self._withheld or bool(delta.get("refusal"))
        thinking = next((text for f in _THINKING_FIELDS if (text := _text_of(delta.get(f)))), "")
        inside, text = _parts_of(delta.get("content"))
        return thinking + inside, text


class _Joined:
    """Text in which the two halves of a surrogate pair may come one by one."""

    def __init__(self) -> None:
        self._half = ""

    def add(self, text: str) -> str:
        """`text` as far as its characters are whole; what never becomes one is U+FFFD."""
        text = self._half + text
        if text.isascii():
            return text
        self._half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        text = text.removesuffix(self._half) if self._half else text
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _parts_of(content: Any) -> tuple[str, str]:
    """Reasoning and text of a message's content, a string or a list of parts."""
    if content is None or isinstance(content, str):
        return "", content or ""
    thinking, text = "", ""
    for part in content:
        if isinstance(part, str):
            text += part
        elif part.get("type") in ("thinking", "reasoning"):
            thinking += _text_of(part.get("thinking") or part.get("text"))
        elif part.get("type") in ("text", "output_text", None):
            text += _text_of(part.get("text"))
    return thinking, text


def _text_of(value: Any) -> str:
    """The text of a field that is a string, or a list of parts with one each."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text_of(part) for part in value)
    if isinstance(value, dict):
        return _text_of(value.get("text") or value.get("content"))
    return ""


def _error_in(frame: Any) -> Any:
    """The error that a frame is; empty if it is none."""
    if frame.get("object") == "error":
        return frame
    return frame.get("error")


def _usage(reported: Any) -> Usage | None:
    """The tokens reported; None where they are incomplete."""
    if not isinstance(reported, dict):
        return None
    read, written = reported.get("prompt_tokens"), reported.get("completion_tokens")
    if not isinstance(read, int) or not isinstance(written, int) or min(read, written) < 0:
        return None
    details = reported.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(read, written, cached if isinstance(cached, int) else 0)
