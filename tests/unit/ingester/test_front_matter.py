"""Front matter that YAML or TOML reads and JSON cannot hold, and front matter that is an attack."""

import json
import time

import pytest
from parsed_documents import refusal
from raglan_ingester.parsers.front_matter import split_front_matter
from raglan_ingester.parsers.markdown import parse
from raglan_ingester.parsers.parsed import Source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nweight: .nan\n---\nBody.\n", "nan"),
        ("---\nweight: -.inf\n---\nBody.\n", "-inf"),
        ("+++\nweight = nan\n+++\nBody.\n", "nan"),
        ('---\nweight: "\\ud800 kg"\n---\nBody.\n', "\ufffd kg"),
        ('---\nweight: "\\ud83d\\ude00"\n---\nBody.\n', "\U0001f600"),
        (
            "---\nweight: [1.5, .nan, {a: 2024-05-06}]\n---\nBody.\n",
            [1.5, "nan", {"a": "2024-05-06"}],
        ),
    ],
)
def test_values_that_json_lacks_become_text(text: str, expected: object) -> None:
    front = split_front_matter(text)

    assert front.metadata == {"weight": expected}
    json.dumps(front.metadata, allow_nan=False).encode()


def test_deep_front_matter_is_ignored_in_no_time() -> None:
    text = "---\na: " + "[" * 6_000 + "]" * 6_000 + "\n---\nBody.\n"
    began = time.process_time()

    front = split_front_matter(text)

    assert front.metadata == {}
    assert front.warnings == ["The front matter was ignored: it is nested more than 32 deep."]
    assert time.process_time() - began < 2


def test_a_title_may_be_a_number() -> None:
    document = parse(Source(b"---\ntitle: 1984\n---\n\nIt was a bright cold day.\n", "novel.md"))

    assert document.title == "1984"


def test_the_warning_about_broken_yaml_names_the_line():
    front = split_front_matter("---\ntitle: x\ntags: [a\n---\ntext")
    assert front.warnings == [
        "The front matter was ignored: line 3 of it is no YAML "
        "(expected ',' or ']', but got '<stream end>')."
    ]


@pytest.mark.parametrize("text", ["---\ntitle: X\n---\n", "---\n", "***\n\n---\n", "<!-- a -->\n"])
def test_a_document_of_front_matter_or_rules_alone_is_refused(text: str) -> None:
    assert "holds no text besides front matter" in refusal("a.md", text.encode())
