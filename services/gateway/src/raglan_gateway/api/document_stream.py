"""The documents of a JSON upload, one at a time, while the body is still arriving.

A body is never held as a whole: limits on documents and on the values of one document take
effect as soon as they are passed, and each document is sent on before the next is read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any, Final

import ijson
from pydantic import ValidationError
from raglan.errors import InvalidInput, PayloadTooLarge

from raglan_gateway.api.schemas import NewDocument
from raglan_gateway.api.surrogates import SurrogateHalves

_SLICE_BYTES: Final = 16 * 1024
"""Parsed at once: the event loop is held for no more than a few milliseconds."""
_MAX_EVENTS: Final = 5_000
"""Of one document: more than any metadata that the index accepts."""

Event = tuple[str, Any]


async def documents_of(
    body: AsyncIterator[bytes], *, max_documents: int
) -> AsyncIterator[NewDocument]:
    """Parse `{"documents": [{...}, ...]}`.

    Raises:
        InvalidInput: it is not JSON of this form; the message says where.
        PayloadTooLarge: more than `max_documents` documents.
    """
    events: Any = ijson.sendable_list()
    parser = ijson.basic_parse_coro(events)
    halves = SurrogateHalves()
    reader = _Reader(max_documents, halves)
    async for piece in body:
        for at in range(0, len(piece), _SLICE_BYTES):
            _advance(parser.send, halves.mark(piece[at : at + _SLICE_BYTES]))
            for document in reader.read(events):
                yield document
            events.clear()
    _advance(parser.send, halves.rest())
    _advance(parser.close)
    for document in reader.read(events):
        yield document
    reader.end()


def _advance(step: Any, *data: bytes) -> None:
    if data == (b"",):  # the parser takes it for the end
        return
    try:
        step(*data)
    except StopIteration:
        return
    # Python refuses an integer of more than 4,300 digits; ijson's C code wraps the ValueError.
    except (ijson.JSONError, ValueError, SystemError) as error:
        reason = str(error).splitlines()[0].removeprefix("b'")[:100]
        raise InvalidInput(f"The body is not valid JSON: {reason}.") from None


class _Reader:
    """Turns the events of the parser into documents; holds one document at most."""

    def __init__(self, max_documents: int, halves: SurrogateHalves) -> None:
        self._halves = halves
        self._max_documents = max_documents
        self._count = 0
        self._state: Callable[[str, Any], NewDocument | None] = self._before
        self._seen_documents = False
        self._builder = ijson.ObjectBuilder()
        self._depth = 0
        self._events = 0

    def read(self, events: list[Event]) -> Iterator[NewDocument]:
        for name, value in events:
            if (document := self._state(name, value)) is not None:
                yield document

    def end(self) -> None:
        """Check that the body held documents."""
        if not self._seen_documents:
            raise InvalidInput("documents: Field required.")
        if not self._count:
            raise InvalidInput("documents: the list is empty; send at least one document.")

    def _before(self, name: str, _: Any) -> NewDocument | None:
        if name != "start_map":
            raise InvalidInput("the body: Input should be an object.")
        self._state = self._key
        return None

    def _key(self, name: str, value: Any) -> NewDocument | None:
        if name == "end_map":
            return None
        if value != "documents" or self._seen_documents:
            raise InvalidInput(f"{value!r:.100}: the body holds one field, `documents`.")
        self._seen_documents = True
        self._state = self._list
        return None

    def _list(self, name: str, _: Any) -> NewDocument | None:
        if name != "start_array":
            raise InvalidInput("documents: Input should be a list.")
        self._state = self._next
        return None

    def _next(self, name: str, value: Any) -> NewDocument | None:
        if name == "end_array":
            self._state = self._key
            return None
        if self._count == self._max_documents:
            raise PayloadTooLarge(
                f"The request holds more than {self._max_documents:,} documents, the limit "
                "(RAGLAN_GATEWAY_MAX_UPLOAD_DOCUMENTS); send several requests."
            )
        self._builder, self._depth, self._events = ijson.ObjectBuilder(), 0, 0
        self._state = self._document
        return self._document(name, value)

    def _document(self, name: str, value: Any) -> NewDocument | None:
        self._events += 1
        if self._events > _MAX_EVENTS:
            raise InvalidInput(
                f"documents.{self._count}: the document holds more than {_MAX_EVENTS:,} JSON "
                "values, the limit; put what is to be searched into `text`."
            )
        value = float(value) if isinstance(value, Decimal) else self._halves.restore(value)
        self._builder.event(name, value)
        if name in ("start_map", "start_array"):
            self._depth += 1
        elif name in ("end_map", "end_array"):
            self._depth -= 1
        if self._depth:
            return None
        document = _validated(self._builder.value, self._count)
        if self._halves.are_in(document.metadata):
            raise InvalidInput(
                f"documents.{self._count}.metadata: it contains half of a surrogate pair, which is "
                "not text."
            )
        self._count += 1
        self._state = self._next
        return document


def _validated(value: Any, number: int) -> NewDocument:
    try:
        return NewDocument.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in ("documents", number, *first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"{where}: {message}.") from None
