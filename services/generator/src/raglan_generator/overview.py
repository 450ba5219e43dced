"""Answers to "What is this about?": the documents' titles and first sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from raglan_generator import markdown
from raglan_generator.extraction import Extraction, Quote, quote_of
from raglan_generator.generation import Passage
from raglan_generator.joining import Stretch, stretches_of
from raglan_generator.units import Kind, Unit, units_of

_ALL: Final = (
    r"(this|that|it|they|these|those|them|everything|(all\ )?(this|these|the|my|your)\ "
    r"(documents?|docs|files?|texts?|collection|documentation|corpus|project|product|site))"
)
_ASKS: Final = re.compile(
    rf"""
    \W* ((please|can\ you|could\ you)\ )? (
        what(\ is|'s|\ are|\ do|\ does)\ {_ALL}\ (all\ |mainly\ |mostly\ )?
            (about | contain | cover | say | describe | talk\ about | deal\ with)
      | what('s|\ is)\ in\ {_ALL}
      | ((give\ me|write)\ )? ((an?|the)\ )? ((short|brief|quick)\ )?
            (overview|summary) (\ of\ {_ALL})?
      | summari[sz]e (\ {_ALL})?
      | tl;?dr
      | worum\ geht\ es (\ hier)? | fasse?\ .{{0,40}}\ zusammen
      | de\ quoi\ (s['\u2019]agit-il|parle.{{0,40}})
      | de\ qu\u00e9\ (trata|va)\b.{{0,40}} | di\ cosa\ (si\ tratta|parla)\b.{{0,40}}
      | \u043e\ \u0447[\u0435\u0451]\u043c\ .{{0,40}}
    ) \W*
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""In English, and in its common forms in German, French, Spanish, Italian and Russian."""

_CONFIDENCE: Final = 0.6
"""Titles and first sentences say what documents are about, as far as they go."""


def asks_for_overview(question: str) -> bool:
    """Return whether `question` asks for the subject of the documents and for nothing else."""
    return _ASKS.fullmatch(question) is not None


def overview(
    passages: Sequence[Passage], *, most: int, checkpoint: Callable[[], None] = lambda: None
) -> Extraction:
    """The first sentence of each of the best documents, with its title.

    Args:
        passages: best first.
        most: documents.
        checkpoint: called for each sentence; raises to stop the work.
    """
    first: dict[str | int, Stretch] = {}
    for stretch in stretches_of(passages):
        key = passages[stretch.passages[0]].document or stretch.passages[0]
        if key not in first or stretch.start < first[key].start:
            first[key] = stretch
    # The beginning of a document describes it better than its middle.
    order = sorted(first.values(), key=lambda each: (each.start > 0, min(each.passages)))
    quotes: list[Quote] = []
    for stretch in order:
        if len(quotes) == most:
            break
        units = units_of(stretch, passages, checkpoint=checkpoint)
        unit = next((unit for unit in units if unit.kind is Kind.SENTENCE), None)
        if unit is not None:
            titled = _titled(unit, stretch, passages)
            quotes.append(quote_of(titled, stretch, unit.span, 1 / len(order)))
    confidence = _CONFIDENCE if quotes else 0.0
    return Extraction(tuple(quotes), confidence, confidence, {"overview": confidence})


def _titled(unit: Unit, stretch: Stretch, passages: Sequence[Passage]) -> Unit:
    """The sentence as an item of a list, behind the title of its document."""
    title = passages[stretch.passages[0]].title or next(iter(unit.headings), "")
    name = f"**{markdown.one_line(title)}**: " if title else ""
    return replace(unit, kind=Kind.ITEM, text=f"- {name}{unit.text}")
