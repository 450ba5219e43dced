"""An answer made of quotes: Markdown, a marker for each quote, and the citations behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raglan_generator import markdown
from raglan_generator.extraction import Quote
from raglan_generator.generation import Citation, Delta, Event, FinishReason
from raglan_generator.sentences import Span, first_words
from raglan_generator.units import Kind


class Composer:
    """Writes the answer; a token is a word between white space, and markers do not count."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._lead_ins: set[str] = set()
        self._last: Quote | None = None
        self._marker = 0
        self.written = 0
        """Tokens so far."""
        self.reason = FinishReason.STOP
        """Finish reason, once the answer has ended."""

    def compose(self, quotes: Sequence[Quote]) -> Iterator[Event]:
        """Yield the events of the answer.

        A quote that does not fit is cut at a word, or left out where a part would be wrong: half
        a row, half a fence.
        """
        for quote in quotes:
            body, lead_in = quote.unit.text, self._new_lead_in(quote)
            cost = len(body.split()) + len(lead_in.split())
            left = self._max_tokens - self.written
            if cost <= left:
                yield from self._write(quote, quote.text, body, lead_in)
                self.written += cost
                continue
            self.reason = FinishReason.LENGTH
            if quote.unit.kind is not Kind.SENTENCE:
                continue
            if span := first_words(quote.text, Span(0, len(quote.text)), left):
                cut = quote.text[: span.end]
                yield from self._write(quote, cut, markdown.closed(markdown.one_line(cut)), "")
                self.written += len(cut.split())
            return

    def _new_lead_in(self, quote: Quote) -> str:
        """The sentence that introduces `quote`; empty where the answer has it already."""
        lead_in = quote.unit.lead_in
        if lead_in in self._lead_ins:
            return ""
        return lead_in

    def _write(self, quote: Quote, text: str, body: str, lead_in: str) -> Iterator[Event]:
        self._marker += 1
        marker = f"[{self._marker}]"
        before, after = _with_marker(quote.unit.kind, body, lead_in, marker)
        yield Delta(self._gap(quote, lead_in) + before)
        yield Citation(
            marker=self._marker,
            passage_index=quote.passage,
            quote=text,
            start=quote.start,
            end=quote.start + len(text),
            page=quote.unit.page,
            heading_path=quote.unit.headings,
        )
        if after:
            yield Delta(after)
        self._lead_ins |= {lead_in, body}
        self._last = quote

    def _gap(self, quote: Quote, lead_in: str) -> str:
        """Return the text that separates `quote` from the one before it."""
        last, kind = self._last, quote.unit.kind
        if last is None:
            return ""
        if last.unit.kind is kind and last.passage == quote.passage:
            if kind is Kind.SENTENCE:
                return " "
            if kind in (Kind.ITEM, Kind.ROW) and not lead_in:
                return "\n"
        return "\n\n"


def _with_marker(kind: Kind, body: str, lead_in: str, marker: str) -> tuple[str, str]:
    """The text up to the marker, and what follows it."""
    if kind is Kind.SENTENCE:
        return f"{body} {marker}", ""
    if kind in (Kind.ITEM, Kind.ROW):
        head, _, rest = (f"- {body}" if kind is Kind.ROW else body).partition("\n")
        introduction = f"{lead_in}\n\n" if lead_in else ""
        return f"{introduction}{head} {marker}", f"\n{rest}" if rest else ""
    # A marker inside of a list or a fence would belong to a part of it.
    if lead_in:
        return f"{lead_in} {marker}", f"\n\n{body}"
    return f"{body}\n\n{marker}", ""
