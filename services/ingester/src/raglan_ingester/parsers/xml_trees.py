"""XML of office files, parsed without entities, network and document types."""

from __future__ import annotations

from typing import Any

from lxml import etree


def parse_xml(data: bytes) -> Any:
    """The root element; None if the bytes are no XML."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    try:
        return etree.fromstring(data, parser) if data.strip() else None
    except (etree.XMLSyntaxError, ValueError):
        return None
