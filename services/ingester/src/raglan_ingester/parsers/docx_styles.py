"""Word's paragraph styles and list numbers, as far as they tell structure."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, Final, NamedTuple

from raglan_ingester.parsers.docx_text import WORD, attribute, is_on
from raglan_ingester.parsers.list_numbers import item_number

_HEADING: Final = re.compile(r"(?:heading|überschrift|titre)\s*(\d)", re.IGNORECASE)
_CODE: Final = re.compile(r"\bcode\b|preformatted|source\s*code", re.IGNORECASE)
_QUOTE: Final = re.compile(r"^(?:intense )?quote$|^block text$", re.IGNORECASE)
_BODY_LEVEL: Final = 9
_MAX_BASED_ON: Final = 20
_MAX_DEPTH: Final = 9
_FORMATS: Final = {
    "lowerLetter": "a",
    "upperLetter": "A",
    "lowerRoman": "i",
    "upperRoman": "I",
}


class Number(NamedTuple):
    """Of a list item."""

    list_id: str
    depth: int
    """From 1."""
    label: str
    """Without punctuation; empty for a bullet."""
    mark: str
    """The number as Word shows it."""


class Styles:
    """Properties of a paragraph's style, inherited along its chain.

    Args:
        root: the `w:styles` element, or None.
    """

    def __init__(self, root: Any) -> None:
        self._styles = {attribute(style, "styleId"): style for style in _children(root, "style")}

    def chain(self, paragraph: Any) -> list[Any]:
        """The paragraph's own properties and styles, the nearest first."""
        properties = paragraph.find(f"{WORD}pPr")
        found = [paragraph] if properties is not None else []
        style_id = attribute(paragraph.find(f"{WORD}pPr/{WORD}pStyle"), "val")
        while (style := self._styles.get(style_id)) is not None and len(found) < _MAX_BASED_ON:
            found.append(style)
            style_id = attribute(style.find(f"{WORD}basedOn"), "val")
        return found

    def heading_level(self, chain: list[Any]) -> int:
        """1 to 9 for a heading, 0 for other paragraphs."""
        for holder in chain:
            level = attribute(holder.find(f"{WORD}pPr/{WORD}outlineLvl"), "val")
            if level.isdigit():
                return int(level) + 1 if int(level) < _BODY_LEVEL else 0
            style = _name(holder)
            if style == "Title" and holder is chain[min(1, len(chain) - 1)]:
                return 1
            if match := _HEADING.match(style):
                return int(match[1])
        return 0

    def is_code(self, chain: list[Any]) -> bool:
        """Return whether a paragraph has a code style."""
        return any(_CODE.search(_name(holder)) for holder in chain)

    def is_quotation(self, chain: list[Any]) -> bool:
        """Return whether a paragraph has a quotation style."""
        return any(_QUOTE.search(_name(holder)) for holder in chain)


class Numbering:
    """Counts list items as Word does: one sequence an abstract list, restarted by level.

    Args:
        root: the `w:numbering` element, or None.
    """

    def __init__(self, root: Any) -> None:
        self._abstract = {
            attribute(one, "abstractNumId"): one for one in _children(root, "abstractNum")
        }
        self._lists = {attribute(one, "numId"): one for one in _children(root, "num")}
        self._counts: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self._started: set[tuple[str, int]] = set()

    def number(self, chain: list[Any]) -> Number | None:
        """Count a paragraph; None if it is no list item."""
        list_id, level = self._place(chain)
        instance = self._lists.get(list_id)
        abstract_id = attribute(_child(instance, "abstractNumId"), "val")
        abstract = self._abstract.get(abstract_id)
        if instance is None or abstract is None:
            return None
        counts = self._counts[abstract_id]
        counts[level] = self._next(instance, abstract, list_id, level, counts)
        for deeper in [other for other in counts if other > level]:
            del counts[deeper]
        definition = self._level(instance, abstract, level)
        style = attribute(_child(definition, "numFmt"), "val") or "decimal"
        if style == "bullet":
            return Number(list_id, level + 1, "", "")
        if style == "none" or definition is None:
            return None
        mark = self._mark(instance, abstract, definition, counts)
        return Number(list_id, level + 1, mark.strip(" .)(:-\t"), mark)

    def _place(self, chain: list[Any]) -> tuple[str, int]:
        """(list, level from 0) of a paragraph; the list is empty for none."""
        list_id, level = "", ""
        for holder in chain:
            properties = holder.find(f"{WORD}pPr/{WORD}numPr")
            if properties is not None:
                level = level or attribute(_child(properties, "ilvl"), "val")
                list_id = list_id or attribute(_child(properties, "numId"), "val")
        return list_id, min(int(level), _MAX_DEPTH - 1) if level.isdigit() else 0

    def _next(
        self, instance: Any, abstract: Any, list_id: str, level: int, counts: dict[int, int]
    ) -> int:
        for override in _children(instance, "lvlOverride"):
            start = attribute(_child(override, "startOverride"), "val")
            is_first = (list_id, level) not in self._started
            if attribute(override, "ilvl") == str(level) and start.isdigit() and is_first:
                self._started.add((list_id, level))
                return int(start)
        if level in counts:
            return counts[level] + 1
        return self._start(instance, abstract, level)

    def _start(self, instance: Any, abstract: Any, level: int) -> int:
        start = attribute(_child(self._level(instance, abstract, level), "start"), "val")
        return int(start) if start.isdigit() else 1

    def _level(self, instance: Any, abstract: Any, level: int) -> Any:
        """The `w:lvl` element that says how a level is numbered."""
        holders = [*_children(instance, "lvlOverride"), abstract]
        for holder in holders:
            for one in _children(holder, "lvl"):
                if attribute(one, "ilvl") == str(level):
                    return one
        return None

    def _mark(self, instance: Any, abstract: Any, definition: Any, counts: dict[int, int]) -> str:
        is_legal = is_on(_child(definition, "isLgl"))

        def shown(match: re.Match[str]) -> str:
            level = int(match[1]) - 1
            other = self._level(instance, abstract, level)
            style = "" if is_legal else attribute(_child(other, "numFmt"), "val")
            count = counts.get(level) or self._start(instance, abstract, level)
            return item_number(count, _FORMATS.get(style, "1"))

        return re.sub(r"%(\d)", shown, attribute(_child(definition, "lvlText"), "val")).strip()


def _children(element: Any, name: str) -> list[Any]:
    return list(element.iterfind(WORD + name)) if element is not None else []


def _child(element: Any, name: str) -> Any:
    return element.find(WORD + name) if element is not None else None


def _name(holder: Any) -> str:
    """The name of a style; empty for a paragraph."""
    return attribute(holder.find(f"{WORD}name"), "val")
