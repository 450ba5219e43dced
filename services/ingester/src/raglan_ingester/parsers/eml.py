"""E-mail (RFC 5322): head, body, and attachments of the formats that are read."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from contextlib import suppress
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from itertools import groupby
from typing import Final

from raglan_ingester import parsers
from raglan_ingester.parsers.decoding import decode_text
from raglan_ingester.parsers.html import read_html
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable, normalise, one_line
from raglan_ingester.parsers.text import read_text
from raglan_ingester.parsers.text_builder import TextBuilder

_MAX_DEPTH: Final = 3
"""Of messages attached to messages; below it they are named in a warning."""
_MAX_ATTACHMENTS: Final = 100
_MAX_PARTS: Final = 1000
_SHOWN: Final = ("From", "To", "Cc", "Date", "Subject")
_MAX_HEADER_CHARS: Final = 2000
_QUOTED: Final = re.compile(r">+ ?")


def parse(source: Source) -> ParsedDocument:
    """Read an e-mail.

    Raises:
        Unparsable: it is empty or no e-mail.
    """
    if not source.data.strip():
        raise Unparsable("The file is empty.")
    message = email.message_from_bytes(source.data, policy=email.policy.default)
    if not isinstance(message, EmailMessage) or not any(name in message for name in _SHOWN):
        raise Unparsable("The file is not an e-mail: it has no sender, recipient or subject.")
    reader = _Reader()
    reader.add(message, 0)
    for name in _SHOWN[:-1]:
        if value := _header(message, name):
            reader.builder.metadata[name.lower()] = value
    with suppress(ValueError, TypeError, AttributeError):
        day = parsedate_to_datetime(str(message["Date"]))
        reader.builder.metadata["date"] = day.isoformat()
    return reader.builder.build(_header(message, "Subject"))


class _Reader:
    def __init__(self) -> None:
        self.builder = TextBuilder()
        self._attachments = 0

    def add(self, message: EmailMessage, depth: int) -> None:
        """Append a message; one that is attached to another stands `depth` levels below it."""
        self.builder.heading(depth + 1, _header(message, "Subject"))
        lines = (f"{name}: {_header(message, name)}" for name in _SHOWN if _header(message, name))
        self.builder.paragraph("\n".join(lines))
        bodies, attachments = _parts(message)
        for body in bodies:
            self._body(body, depth)
        for attachment in attachments:
            self._attachments += 1
            if self._attachments <= _MAX_ATTACHMENTS:
                self._attach(attachment, depth + 1)
        if self._attachments > _MAX_ATTACHMENTS and not depth:
            self.builder.warnings.append(
                f"Only the first {_MAX_ATTACHMENTS} of {self._attachments} attachments were read."
            )

    def _body(self, part: EmailMessage, depth: int) -> None:
        data = _payload(part)
        if not data.strip():
            return
        decoded = decode_text(data, part.get_content_charset() or "")
        self.builder.warnings += decoded.warnings
        if part.get_content_type() == "text/html":
            read_html(decoded.text, self.builder)
        else:
            self._plain(decoded.text, depth)

    def _plain(self, text: str, depth: int) -> None:
        """Append plain text with its lists; lines behind ">" are a quotation."""
        for quoted, lines in groupby(text.split("\n"), lambda line: line.startswith(">")):
            if not quoted:
                unquoted = read_text(normalise("\n".join(lines).strip("\n")))
                self.builder.embed(unquoted, depth + 1)
                continue
            run = "\n".join(_QUOTED.sub("", line, count=1) for line in lines)
            self.builder.open_quotation()
            for paragraph in re.split(r"\n[^\S\n]*\n", run):
                self.builder.paragraph(paragraph)
            self.builder.close_quotation()

    def _attach(self, part: EmailMessage, depth: int) -> None:
        name = one_line(part.get_filename() or "") or part.get_content_type()
        if part.get_content_type() == "message/rfc822":
            inner = part.get_payload(0) if part.is_multipart() else None
            if isinstance(inner, EmailMessage) and depth <= _MAX_DEPTH:
                self.add(inner, depth)
            else:
                self.builder.warnings.append(
                    f'The attached message "{name}" was not read: messages are attached to '
                    f"messages more than {_MAX_DEPTH} times."
                )
            return
        source = Source(_payload(part), name, part.get_content_type())
        try:
            if parsers.format_of(source) == "eml" and depth > _MAX_DEPTH:
                raise Unparsable("Messages are attached to messages too deeply.")
            parsed = parsers.parse(source)
        except Unparsable as error:
            self.builder.warnings.append(f'The attachment "{name}" was not read: {error}')
            return
        self.builder.heading(min(depth + 1, 6), name)
        self.builder.embed(parsed, depth + 1)
        self.builder.warnings += (f'Attachment "{name}": {text}' for text in parsed.warnings)


def _parts(message: EmailMessage) -> tuple[list[EmailMessage], list[EmailMessage]]:
    """(bodies, attachments); of alternatives, plain text before HTML unless it is blank."""
    bodies: list[EmailMessage] = []
    attachments: list[EmailMessage] = []
    for part in _walk(message):
        content_type = part.get_content_type()
        if part.get_content_disposition() == "attachment" or part.get_filename():
            if content_type.startswith("image/") and part.get_content_disposition() != "attachment":
                continue
            attachments.append(part)
        elif content_type == "message/rfc822":
            attachments.append(part)
        elif content_type in ("text/plain", "text/html"):
            bodies.append(part)
    return bodies, attachments


def _walk(message: EmailMessage) -> Iterator[EmailMessage]:
    """The leaves of a message; of alternatives only the one to read."""
    stack = [message]
    for _ in range(_MAX_PARTS):
        if not stack:
            return
        part = stack.pop()
        if not part.is_multipart() or part.get_content_type() == "message/rfc822":
            yield part
            continue
        children = [child for child in part.get_payload() if isinstance(child, EmailMessage)]
        if part.get_content_type() == "multipart/alternative":
            children = [_best(children)] if children else []
        stack.extend(reversed(children))


def _best(alternatives: list[EmailMessage]) -> EmailMessage:
    for part in alternatives:
        if part.get_content_type() == "text/plain" and len(_payload(part).split()) > 5:
            return part
    return alternatives[-1]


def _payload(part: EmailMessage) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _header(message: EmailMessage, name: str) -> str:
    try:
        return one_line(str(message.get(name, "")))[:_MAX_HEADER_CHARS]
    except (ValueError, TypeError, AttributeError, IndexError):
        # The standard library fails on some malformed headers.
        return ""
