"""reStructuredText through docutils; what Sphinx adds to it is read as far as it holds text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import docutils.core
import docutils.nodes as nodes
from docutils.parsers.rst import Directive, directives, roles

from raglan_ingester.parsers.decoding import decode_text
from raglan_ingester.parsers.list_numbers import item_number
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable, one_line
from raglan_ingester.parsers.table_headers import merge_header_rows
from raglan_ingester.parsers.text_builder import TextBuilder

_SETTINGS: Final = {
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "report_level": 5,
    "halt_level": 5,
    "input_encoding": "unicode",
    "output_encoding": "unicode",
    "_disable_config": True,
    "doctitle_xform": False,
    "docinfo_xform": False,
    "smart_quotes": False,
    "line_length_limit": 100_000_000,
    "syntax_highlight": "none",
}
_TARGET: Final = re.compile(r"\s*<[^<>]*>\s*$")
_CODE_DIRECTIVES: Final = (
    "code-block",
    "sourcecode",
    "code",
    "literalinclude",
    "prompt",
    "doctest",
)
_SILENT_NAMES: Final = """
autoclass autofunction automodule autosummary contents currentmodule default-domain default-role
highlight include index meta module only program raw tabularcolumns toctree
"""
_SILENT_DIRECTIVES: Final = frozenset(_SILENT_NAMES.split())
_VERSION_DIRECTIVES: Final = ("versionadded", "versionchanged", "deprecated", "versionremoved")


class _AnyOption(dict[str, Callable[[str], str]]):
    """Takes every option of a directive as it is written."""

    def __missing__(self, _: str) -> Callable[[str], str]:
        return str


class _UnknownDirective(Directive):  # type: ignore[misc] # docutils has no types
    """A directive of Sphinx: its argument and content stay, its options go."""

    optional_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec = _AnyOption({"class": str})

    def run(self) -> list[nodes.Node]:
        name = self.name.rpartition(":")[2]
        if name in _SILENT_DIRECTIVES:
            return []
        if name in _CODE_DIRECTIVES:
            code = "\n".join(self.content)
            block = nodes.literal_block(code, code)
            block["classes"] = ["code", self.arguments[0]] if self.arguments else ["code"]
            return [block]
        container = nodes.container()
        argument = " ".join(self.arguments)
        if name in _VERSION_DIRECTIVES:
            argument = f"{name} {argument}".strip()
        if argument and not argument.startswith(":"):
            container += nodes.paragraph(argument, argument)
        self.state.nested_parse(self.content, self.content_offset, container)
        return [container]


def parse(source: Source) -> ParsedDocument:
    """Read a reStructuredText document.

    Raises:
        Unparsable: it is empty, no text, or docutils cannot parse it.
    """
    decoded = decode_text(source.data)
    with _SphinxNames():
        try:
            tree = docutils.core.publish_doctree(decoded.text, settings_overrides=dict(_SETTINGS))
        except docutils.utils.SystemMessage as error:
            raise Unparsable(f"The reStructuredText cannot be read: {error}.") from None
    writer = _Writer()
    writer.builder.warnings += decoded.warnings
    writer.write(tree)
    return writer.builder.build(writer.title)


class _SphinxNames:
    """While it is open, docutils knows every directive and role."""

    def __enter__(self) -> None:
        self._directive: Callable[..., Any] = directives.directive
        self._role: Callable[..., Any] = roles.role
        directives.directive = self._any_directive
        roles.role = self._any_role

    def __exit__(self, *_: object) -> None:
        directives.directive = self._directive
        roles.role = self._role

    def _any_directive(self, name: str, language: Any, document: Any) -> Any:
        if name in _CODE_DIRECTIVES or name in _SILENT_DIRECTIVES:
            return _UnknownDirective, []
        found, messages = self._directive(name, language, document)
        return (found, messages) if found is not None else (_UnknownDirective, [])

    def _any_role(self, name: str, language: Any, line: int, reporter: Any) -> Any:
        found, messages = self._role(name, language, line, reporter)
        return (found, messages) if found is not None else (_unknown_role, [])


def _unknown_role(
    _name: str, _raw: str, text: str, *_: Any, **__: Any
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """`:ref:`title <target>`` and the like: the text without its target."""
    shown = _TARGET.sub("", nodes.unescape(text)) or text.strip("<>")
    shown = shown.lstrip("~!").rpartition(".")[2] if text.startswith("~") else shown.lstrip("!")
    return [nodes.inline(text, shown)], []


class _Writer:
    """Walks docutils' tree and hands its blocks to the builder."""

    def __init__(self) -> None:
        self.builder = TextBuilder()
        self.title = ""
        self._level = 0

    def write(self, node: Any) -> None:
        """Append `node` and what it holds."""
        handle = _HANDLERS.get(type(node))
        if handle is not None:
            handle(self, node)
        elif not isinstance(node, _SILENT_NODES):
            self._children(node)

    def _children(self, node: Any) -> None:
        for child in node.children:
            self.write(child)

    def _section(self, node: Any) -> None:
        self._level += 1
        self._children(node)
        self._level -= 1

    def _title(self, node: Any) -> None:
        text = one_line(node.astext())
        if isinstance(node.parent, nodes.section):
            self.title = self.title or (text if self._level == 1 else "")
            self.builder.heading(self._level, text)
        else:
            self.builder.paragraph(text)

    def _paragraph(self, node: Any) -> None:
        self.builder.paragraph(one_line(_shown(node)))

    def _code(self, node: Any) -> None:
        language = [name for name in node.get("classes", ()) if name != "code"]
        self.builder.code(node.astext(), language[0] if language else "")

    def _lines(self, node: Any) -> None:
        self.builder.paragraph("\n".join(line.astext() for line in node.findall(nodes.line)))

    def _list(self, node: Any) -> None:
        count = int(node.get("start", 1))
        self.builder.open_list()
        for item in node.children:
            is_numbered = isinstance(node, nodes.enumerated_list)
            style = _ENUMERATIONS.get(node.get("enumtype", ""), "1")
            label = item_number(count, style) if is_numbered else ""
            self.builder.open_item(label)
            self._children(item)
            self.builder.close_item()
            count += 1
        self.builder.close_list()

    def _definitions(self, node: Any) -> None:
        self.builder.open_list()
        for item in node.children:
            self.builder.open_item()
            self._children(item)
            self.builder.close_item()
        self.builder.close_list()

    def _field(self, node: Any) -> None:
        self.builder.paragraph(f"{node[0].astext()}: {one_line(node[1].astext())}")

    def _quotation(self, node: Any) -> None:
        self.builder.open_quotation()
        self._children(node)
        self.builder.close_quotation()

    def _note(self, node: Any) -> None:
        """An admonition: its name stands before its text."""
        kind = type(node).__name__
        if kind != "admonition":
            self.builder.paragraph(f"{kind.capitalize()}:")
        self._children(node)

    def _footnote(self, node: Any) -> None:
        self.builder.paragraph(
            "Note " + ": ".join(one_line(child.astext()) for child in node.children)
        )

    def _table(self, node: Any) -> None:
        for title in node.findall(nodes.title):
            self.builder.paragraph(title.astext())
        rows: list[list[str]] = []
        header_rows = 0
        for row in node.findall(nodes.row):
            header_rows += isinstance(row.parent, nodes.thead)
            rows.append([one_line(_shown(entry)) for entry in row.children])
        self.builder.table(
            merge_header_rows(rows, header_rows), has_header=0 < header_rows < len(rows)
        )


def _shown(node: Any) -> str:
    """The text of a node without pictures and footnote marks."""
    if isinstance(node, nodes.footnote_reference | nodes.image | nodes.system_message):
        return ""
    if not node.children:
        return str(node.astext())
    separator = " " if isinstance(node, nodes.entry | nodes.list_item | nodes.bullet_list) else ""
    return separator.join(_shown(child) for child in node.children)


_ENUMERATIONS: Final = {
    "loweralpha": "a",
    "upperalpha": "A",
    "lowerroman": "i",
    "upperroman": "I",
}
_SILENT_NODES: Final = (
    nodes.comment,
    nodes.system_message,
    nodes.substitution_definition,
    nodes.target,
    nodes.image,
    nodes.raw,
    nodes.pending,
    nodes.problematic,
)
_HANDLERS: Final[dict[type, Callable[[_Writer, Any], None]]] = {
    nodes.section: _Writer._section,
    nodes.title: _Writer._title,
    nodes.subtitle: _Writer._paragraph,
    nodes.rubric: _Writer._paragraph,
    nodes.paragraph: _Writer._paragraph,
    nodes.term: _Writer._paragraph,
    nodes.caption: _Writer._paragraph,
    nodes.attribution: _Writer._paragraph,
    nodes.literal_block: _Writer._code,
    nodes.doctest_block: _Writer._code,
    nodes.math_block: _Writer._code,
    nodes.line_block: _Writer._lines,
    nodes.bullet_list: _Writer._list,
    nodes.enumerated_list: _Writer._list,
    nodes.definition_list: _Writer._definitions,
    nodes.option_list: _Writer._definitions,
    nodes.option_group: _Writer._paragraph,
    nodes.field: _Writer._field,
    nodes.block_quote: _Writer._quotation,
    nodes.footnote: _Writer._footnote,
    nodes.citation: _Writer._footnote,
    nodes.table: _Writer._table,
    **dict.fromkeys(
        (
            *(nodes.note, nodes.warning, nodes.tip, nodes.hint, nodes.important),
            *(nodes.attention, nodes.caution, nodes.danger, nodes.error, nodes.admonition),
        ),
        _Writer._note,
    ),
}
