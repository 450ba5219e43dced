"""Messages of a conversation as a question and the turns before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from raglan.identifiers import shortened

from raglan_gateway.api.openai.lenient import Lenient, ListOf
from raglan_gateway.error_envelopes import InvalidParameter

MAX_MESSAGES: Final = 2_000
MAX_TURNS: Final = 100
"""Turns that the generator takes; of a longer conversation it gets the newest."""
_TEXTS: Final = frozenset({"text", "input_text", "output_text"})


class Message(Lenient):
    """A message. Its parts are checked by hand, so that a refusal names one."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | ListOf[dict[str, Any]] | None = None


@dataclass(slots=True)
class Conversation:
    """A question, and the turns before it as `schemas.Turn` has them."""

    question: str
    history: list[dict[str, str]]
    ignored: list[str] = field(default_factory=list)
    """Parts of the request that the answer does not depend on, a sentence each."""


def conversation(messages: Sequence[Message], name: str = "messages") -> Conversation:
    """Read messages, of which the last has to be a user's.

    Args:
        messages: oldest first.
        name: of the field that holds them.

    Raises:
        InvalidParameter: no question, or a part that is no text.
    """
    if not messages:
        raise InvalidParameter(f"{name} is empty; send at least one user message.", param=name)
    if len(messages) > MAX_MESSAGES:
        raise InvalidParameter(
            f"{name} has {len(messages)} messages; the limit is {MAX_MESSAGES}. Leave out the "
            "oldest.",
            param=name,
        )
    turns: list[tuple[int, str, str]] = []
    system = 0
    for number, message in enumerate(messages):
        where = f"{name}[{number}]"
        text = _text(message, where)
        if message.role in ("user", "assistant"):
            if text.strip():
                turns.append((number, message.role, text))
        elif text.strip():
            system += 1
    return _split(turns, system, messages, name)


def _split(
    turns: list[tuple[int, str, str]], system: int, messages: Sequence[Message], name: str
) -> Conversation:
    last = len(messages) - 1
    while last and messages[last].role in ("system", "developer"):
        last -= 1
    if not turns or turns[-1][0] != last or turns[-1][1] != "user":
        where = f"{name}[{last}]"
        role = messages[last].role
        said = "has no text" if role == "user" else f"is of the role {role}"
        raise InvalidParameter(
            f"{where} {said}; the last message has to be the user's question.", param=where
        )
    earlier = [{"role": role, "text": text} for _, role, text in turns[:-1]]
    found = Conversation(turns[-1][2], earlier[-MAX_TURNS:])
    if system:
        found.ignored.append(
            f"{system} of the messages are instructions (system, developer); the generator has "
            "its own prompt, and answers from the passages only."
        )
    if len(earlier) > MAX_TURNS:
        found.ignored.append(f"Of {len(earlier)} earlier turns the newest {MAX_TURNS} are read.")
    return found


def _text(message: Message, where: str) -> str:
    if message.role in ("tool", "function"):
        raise _unsupported(f"{where}.role", f"The role {message.role!r}", "tools are not called")
    for name in ("tool_calls", "function_call", "audio"):
        if (message.model_extra or {}).get(name):
            raise _unsupported(f"{where}.{name}", f"{where}.{name}", "send text only")
    if message.content is None:
        if message.role == "assistant":
            return ""
        raise InvalidParameter(f"{where}.content is missing.", param=f"{where}.content")
    if isinstance(message.content, str):
        return message.content
    return "\n".join(
        _part(part, f"{where}.content[{number}]") for number, part in enumerate(message.content)
    )


def _part(part: dict[str, Any], where: str) -> str:
    kind = part.get("type")
    if kind not in _TEXTS:
        shown = shortened(kind) if isinstance(kind, str) else repr(kind)[:40]
        raise _unsupported(where, f"The part {where} of type {shown}", "send text only")
    if not isinstance(text := part.get("text"), str):
        raise InvalidParameter(f"{where}.text is no text.", param=f"{where}.text")
    return text


def _unsupported(param: str, subject: str, way_out: str) -> InvalidParameter:
    return InvalidParameter(
        f"{subject} is not supported; {way_out}.", param=param, code="unsupported_value"
    )
