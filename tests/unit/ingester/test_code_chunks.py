"""Source code, cut along its definitions."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from raglan_ingester import parsers
from raglan_ingester.chunking import Chunk, Sizes, chunk
from raglan_ingester.parsers.parsed import ParsedDocument, Source
from raglan_ingester.parsers.syntax import GRAMMARS

SOURCES = Path(__file__).parents[3] / "services/ingester/src/raglan_ingester"
FUNCTION = {
    "a.py": "def f{0}(x):\n    # Grüße\n    y = x + {0}\n\n    return y\n",
    "a.js": "function f{0}(x) {{\n  // Grüße\n  const y = x + {0};\n\n  return y;\n}}\n",
    "a.ts": "export function f{0}(x: number): number {{\n  // Grüße\n\n  return x + {0};\n}}\n",
    "a.go": "func f{0}(x int) int {{\n\t// Grüße\n\ty := x + {0}\n\n\treturn y\n}}\n",
    "a.java": "class F{0} {{\n  // Grüße\n  int f(int x) {{\n\n    return x + {0};\n  }}\n}}\n",
    "a.rs": "fn f{0}(x: i32) -> i32 {{\n    // Grüße\n    let y = x + {0};\n\n    y\n}}\n",
    "a.c": "int f{0}(int x) {{\n  /* Grüße */\n  int y = x + {0};\n\n  return y;\n}}\n",
}


def parse(text: str, name: str = "a.py") -> ParsedDocument:
    return parsers.parse(Source(text.encode(), name, ""), "code")


def cut(text: str, name: str = "a.py", max_chars: int = 300) -> list[Chunk]:
    return chunk(parse(text, name), Sizes(max_chars), strategy="code")


@pytest.mark.parametrize("name", FUNCTION)
def test_a_definition_is_whole_in_one_chunk(name: str) -> None:
    functions = [FUNCTION[name].format(number) for number in range(30)]
    text = "\n".join(functions)
    pieces = [text[each.start : each.end] for each in cut(text, name)]
    assert all(any(each.strip() in piece for piece in pieces) for each in functions)
    assert len(pieces) < len(functions)


def test_every_grammar_is_tested() -> None:
    labels = {parse(text.format(1), name).blocks[0].label for name, text in FUNCTION.items()}
    assert labels == set(GRAMMARS)


def test_methods_of_a_long_class_are_told_with_its_name() -> None:
    methods = "".join(
        f"    def method_{n}(self):\n        value = {n}\n\n        return value\n\n"
        for n in range(30)
    )
    pieces = cut(f"import os\n\nclass Pool(Base):\n{methods}\n\ndef after():\n    return 1\n")
    assert {piece.heading_path for piece in pieces[1:-1]} == {("class Pool(Base)",)}
    assert pieces[-1].heading_path == ()


def test_a_comment_goes_with_what_it_stands_above() -> None:
    text = "".join(f"# About f{n}.\ndef f{n}():\n    return {n}\n\n\n" for n in range(40))
    pieces = [text[each.start : each.end] for each in cut(text, max_chars=200)]
    assert all(piece.startswith("# About") for piece in pieces)


def test_functions_of_this_package_are_cut_less_often() -> None:
    """Functions that fit into a chunk and are in none as a whole, beside cutting by structure."""
    split = {"structure": 0, "code": 0}
    for path in sorted(SOURCES.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        bodies = [
            "".join(lines[node.lineno - 1 : node.end_lineno]).strip()
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for strategy in split:
            parsed = parsers.parse(Source(text.encode(), path.name, ""), strategy)
            pieces = chunk(parsed, Sizes(1200), strategy=strategy)
            texts = [text[each.start : each.end] for each in pieces]
            split[strategy] += sum(
                not any(body in piece for piece in texts) for body in bodies if len(body) <= 800
            )
    assert split["code"] == 0 < split["structure"]


def test_a_file_that_does_not_parse_is_cut_with_a_warning() -> None:
    document = parse("def f():\n    return 1\n\ndef g(:\n    pass\n\ndef h():\n    return 3\n")
    assert document.warnings == [
        "The file does not parse as python at line 4; the rest was cut by syntax."
    ]
    assert "def h" in document.text[document.blocks[-1].start :]


def test_a_language_without_a_grammar_is_cut_at_blank_lines() -> None:
    document = parse("select 1;\n\nselect 2;\n", "a.sql")
    assert [block.label for block in document.blocks] == ["sql", "sql"]


def test_a_file_of_braces_ends() -> None:
    assert parse("{" * 100_000, "a.c").blocks


def test_without_grammars_files_are_cut_at_blank_lines_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tree_sitter", None)
    document = parse("x = 1\n\ny = 2\n")
    assert len(document.blocks) == 2
    assert "raglan-ingester[code]" in document.warnings[0]
