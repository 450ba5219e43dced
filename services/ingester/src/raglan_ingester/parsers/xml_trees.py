"""XML, parsed without entities, network and document types."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from lxml import etree

XmlError = etree.XMLSyntaxError
"""The bytes are no XML from some place on."""


def parse_xml(data: bytes) -> Any:
    """The root element; None if the bytes are no XML."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    try:
        return etree.fromstring(data, parser) if data.strip() else None
    except (etree.XMLSyntaxError, ValueError):
        return None


def parse_events(data: bytes) -> Iterator[tuple[str, Any]]:
    """Yield ("start" or "end", element) as the parser meets them; raises XmlError at a fault."""
    yield from etree.iterparse(
        io.BytesIO(data),
        events=("start", "end"),
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
    )


def forget(element: Any) -> None:
    """Free an element that has ended, and those before it: a long list then takes no memory."""
    element.clear()
    while element.getprevious() is not None:
        del element.getparent()[0]
