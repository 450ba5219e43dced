"""Source code with its definitions as blocks, by tree-sitter."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from raglan.blocks import Block, BlockKind

from raglan_ingester.parsers import code
from raglan_ingester.parsers.parsed import Heading, ParsedDocument, Source, name

if TYPE_CHECKING:
    from tree_sitter import Node

GRAMMARS: Final[dict[str, tuple[str, str]]] = {
    "python": ("tree_sitter_python", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_tsx"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "c": ("tree_sitter_c", "language"),
}
"""Language -> module of its grammar, and the function that returns it."""
MAX_BYTES: Final = 4 * 1024 * 1024
"""Of a file whose syntax is read; a tree takes many times that."""
_WHOLE_CHARS: Final = 800
"""A definition up to this size is one block; of a longer one, what is inside are blocks."""
_MAX_DEPTH: Final = 6
_NOT_INSTALLED: Final = (
    "Source code was cut at blank lines: the grammars are not installed "
    "(pip install 'raglan-ingester[code]')."
)
_BODIES: Final = frozenset(
    {
        *("block", "class_body", "declaration_list", "enum_body", "field_declaration_list"),
        *("interface_body", "object", "statement_block"),
    }
)
_CONTAINERS: Final = frozenset(
    {
        *("class_definition", "class_declaration", "abstract_class_declaration", "class"),
        *("interface_declaration", "enum_declaration", "record_declaration", "impl_item"),
        *("trait_item", "mod_item", "namespace_definition", "internal_module", "function_item"),
        *("function_definition", "function_declaration", "method_definition"),
        *("method_declaration", "generator_function_declaration", "constructor_declaration"),
    }
)
"""Definitions whose first line is a heading of their parts, where they are longer than a block."""
_WRAPPERS: Final = frozenset({"decorated_definition", "export_statement"})


def parse(source: Source) -> ParsedDocument:
    """Read a file of source code along its syntax.

    Languages without a grammar, and files that are too large, are cut at blank lines.

    Raises:
        Unparsable: it is empty or no text.
    """
    plain = code.parse(source)
    label = plain.blocks[0].label if plain.blocks else ""
    if label not in GRAMMARS:
        return plain
    data = plain.text.encode()
    if len(data) > MAX_BYTES:
        return _warned(
            plain,
            f"The file has more than {MAX_BYTES:,} bytes, so it was cut at blank lines.",
        )
    root = _root(label, data)
    if root is None:
        return _warned(plain, _NOT_INSTALLED)
    if root.type == "ERROR":
        return _warned(plain, f"The file is no {label} that parses; it was cut at blank lines.")
    outline = _Definitions()
    outline.visit(root, 1)
    places = _characters(data, outline.offsets())
    parsed = replace(
        plain,
        headings=_headings(plain.text, outline, places),
        blocks=list(
            _blocks(plain.text, sorted({0, *(places[each] for each in outline.starts)}), label)
        ),
    )
    if not root.has_error:
        return parsed
    line = _first_error(root)
    return _warned(
        parsed, f"The file does not parse as {label} at line {line}; the rest was cut by syntax."
    )


def _root(label: str, data: bytes) -> Node | None:
    """The syntax tree; None where the grammars are not installed."""
    module, function = GRAMMARS[label]
    try:
        import tree_sitter

        grammar = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError:
        return None
    return tree_sitter.Parser(tree_sitter.Language(grammar())).parse(data).root_node


def _warned(parsed: ParsedDocument, warning: str) -> ParsedDocument:
    return replace(parsed, warnings=[*parsed.warnings, warning])


@dataclass(slots=True)
class _Definitions:
    """Where the parts of a syntax tree begin, in bytes."""

    starts: list[int] = field(default_factory=list)
    containers: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(start, start of the body, end, level) of definitions that are longer than a block."""

    def offsets(self) -> set[int]:
        return {*self.starts, *(place for each in self.containers for place in each[:3])}

    def visit(self, node: Node, level: int) -> None:
        """Add the parts of a body."""
        comment: int | None = None
        for child in node.named_children:
            if "comment" in child.type:
                # It goes with what it stands above.
                comment = child.start_byte if comment is None else comment
                continue
            self.starts.append(child.start_byte if comment is None else comment)
            comment = None
            if child.end_byte - child.start_byte > _WHOLE_CHARS and level <= _MAX_DEPTH:
                self._divide(child, level)
        if comment is not None:
            self.starts.append(comment)

    def _divide(self, node: Node, level: int) -> None:
        inner = node
        while inner.type in _WRAPPERS:
            held = inner.child_by_field_name("definition") or inner.child_by_field_name(
                "declaration"
            )
            if held is None:
                return
            inner = held
        body = next((each for each in inner.named_children if each.type in _BODIES), None)
        if body is None or inner.type not in _CONTAINERS:
            return
        self.containers.append((inner.start_byte, body.start_byte, node.end_byte, level))
        self.visit(body, level + 1)


def _characters(data: bytes, offsets: set[int]) -> dict[int, int]:
    """The offset in characters of each offset in bytes."""
    places, at, seen = {}, 0, 0
    for offset in sorted(offsets):
        seen += len(data[at:offset].decode())
        at = offset
        places[offset] = seen
    return places


def _headings(text: str, outline: _Definitions, places: dict[int, int]) -> list[Heading]:
    found = []
    for start, body, end, level in outline.containers:
        signature = name(text[places[start] : places[body]]).rstrip(" {:")
        found.append(Heading(places[start], level, signature))
        found.append(Heading(places[end], level, ""))
    return sorted(found, key=lambda heading: (heading.offset, bool(heading.text)))


def _blocks(text: str, starts: list[int], label: str) -> Iterator[Block]:
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        piece = text[start:end]
        first = start + len(piece) - len(piece.lstrip())
        last = start + len(piece.rstrip())
        if first < last:
            yield Block(BlockKind.CODE, first, last, label=label)


def _first_error(root: Node) -> int:
    """Line, from 1, of the first part of a tree that is an error or that misses something."""
    node = root
    while True:
        broken = next((each for each in node.children if each.has_error or each.is_missing), None)
        if broken is None or broken.is_error or broken.is_missing:
            return int((broken or node).start_point[0]) + 1
        node = broken
