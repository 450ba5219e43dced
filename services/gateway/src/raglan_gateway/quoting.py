"""The answer of last resort: when no generator can be reached, the best passages speak."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from raglan.v1 import common_pb2, generator_pb2

from raglan_gateway.expansion.joining import own_part

MODEL: Final = "quoted-passages"
_PASSAGES: Final = 3
_CHARS: Final = 300
_EMPTY: Final = "The documents do not answer this."


def quote_passages(
    passages: Sequence[common_pb2.Passage],
) -> Iterator[generator_pb2.GenerateEvent]:
    """The beginnings of the best passages, each quoted and cited, as a generator would stream."""
    for index, passage in enumerate(passages[:_PASSAGES]):
        start = own_part(passage).start
        quote = _beginning(passage.text[start - passage.start :])
        marker = index + 1
        text = f"{quote} [{marker}]"
        yield generator_pb2.GenerateEvent(
            delta=generator_pb2.Delta(text=text if index == 0 else f"\n\n{text}")
        )
        yield generator_pb2.GenerateEvent(
            citation=generator_pb2.Citation(
                marker=marker,
                passage_index=index,
                quote=quote,
                start=start,
                end=start + len(quote),
            )
        )
    if not passages:
        yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text=_EMPTY))
    reason = generator_pb2.FINISH_REASON_STOP if passages else generator_pb2.FINISH_REASON_ABSTAINED
    yield generator_pb2.GenerateEvent(finished=generator_pb2.Finished(reason=reason, model=MODEL))


def _beginning(text: str) -> str:
    """At most `_CHARS` characters from the start of `text`, cut between words where possible."""
    if len(text) <= _CHARS:
        return text
    space = text.rfind(" ", 0, _CHARS + 1)
    return text[: space if space > 0 else _CHARS]
