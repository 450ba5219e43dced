"""Plain text, code, records, notebooks, e-mail, markup and subtitles."""

from __future__ import annotations

import json
from email.message import EmailMessage
from typing import Any

import pytest
from parsed_documents import blocks, headings, items, paragraphs, read, refusal, tables
from raglan.blocks import BlockKind
from raglan_ingester.chunking import Sizes, chunk
from raglan_ingester.parsers.parsed import ParsedDocument

# --- Plain text and code --------------------------------------------------------------------------


def test_plain_text_has_paragraphs_lists_and_underlined_headings() -> None:
    text = (
        "Manual\n======\n\nIntro goes\non here - yes.\n\nTo stop:\n\n1. Press\n   it.\n"
        "   - hard\n2. Wait.\n\nThe end.\n"
    )

    parsed = read("a.txt", text)

    assert parsed.text == text
    assert parsed.title == "Manual"
    assert headings(parsed) == [(1, "Manual")]
    assert paragraphs(parsed)[:2] == ["Intro goes\non here - yes.", "To stop:"]
    assert items(parsed) == [(1, "1", "Press"), (2, "", "hard"), (1, "2", "Wait.")]
    lists = [b for b in parsed.blocks if b.kind is BlockKind.LIST_ITEM]
    assert [b.lead_in for b in lists] == ["To stop:", "Press it.", "To stop:"]
    assert text[lists[0].start : lists[0].end] == "1. Press\n   it.\n   - hard"


def test_a_dash_inside_a_paragraph_begins_no_list() -> None:
    assert items(read("a.txt", "We went home\n- all of us -\nand slept.")) == []


def test_code_is_cut_into_its_top_level_parts() -> None:
    code = "import os\n\n\ndef f():\n    a = 1\n\n    return a\n\n\nclass A:\n    pass\n"

    parsed = read("src/a.py", code)

    assert blocks(parsed, BlockKind.CODE) == [
        "import os",
        "def f():\n    a = 1\n\n    return a",
        "class A:\n    pass",
    ]
    assert {b.label for b in parsed.blocks} == {"python"}


# --- Records --------------------------------------------------------------------------------------


def test_the_separator_line_of_excel_is_no_header() -> None:
    assert read("a.csv", "sep=;\nName;Price\nBolt;1.50\n").text == "Name: Bolt\nPrice: 1.50"


def test_a_file_without_header_gets_no_column_names() -> None:
    parsed = read("a.csv", "Alice,Berlin,40\nBob,Paris,50\n")

    assert tables(parsed) == [(False, [["Alice", "Berlin", "40"], ["Bob", "Paris", "50"]])]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a,b\n1,2\n", "a: 1\nb: 2"),
        ("name\tnote\nx\ty, z\n", "name: x\nnote: y, z"),
        ('id|text\n1|"a|b"\n', "id: 1\ntext: a|b"),
        ("day;price\n2024-01-01;1,50\n", "day: 2024-01-01\nprice: 1,50"),
    ],
)
def test_the_delimiter_is_the_one_that_fits_the_rows(text: str, first: str) -> None:
    assert read("a.csv", text).text == first


def test_every_chunk_of_a_long_row_names_its_record() -> None:
    parsed = read("a.csv", f"id,body,owner\n7,{'word ' * 300},dana\n8,short,eve\n")

    chunks = chunk(parsed, Sizes(300))

    assert len(chunks) > 3
    assert all(piece.heading_path[:1] == ("id: 7",) for piece in chunks[:-1])
    assert chunks[-1].heading_path == ()


# --- Notebooks ------------------------------------------------------------------------------------


def notebook(*cells: dict[str, Any]) -> ParsedDocument:
    content = {"nbformat": 4, "metadata": {"language_info": {"name": "julia"}}, "cells": cells}
    return read("a.ipynb", json.dumps(content))


def test_a_notebook_gives_markdown_code_and_outputs() -> None:
    parsed = notebook(
        {"cell_type": "markdown", "source": ["# Pumps\n", "\n", "- one\n", "- two"]},
        {
            "cell_type": "code",
            "source": "f(1)",
            "outputs": [
                {"output_type": "stream", "text": ["done\n"]},
                {"output_type": "execute_result", "data": {"text/plain": "42", "image/png": "A"}},
                {"output_type": "error", "ename": "KeyError", "evalue": "'x'", "traceback": []},
            ],
        },
        {"cell_type": "markdown", "source": "## Next\n\nEnd."},
    )

    assert parsed.title == "Pumps"
    assert headings(parsed) == [(1, "Pumps"), (2, "Next")]
    assert items(parsed) == [(1, "", "one"), (1, "", "two")]
    code = [
        (b.label, parsed.text[b.start : b.end]) for b in parsed.blocks if b.kind is BlockKind.CODE
    ]
    assert code == [
        ("julia", "f(1)"),
        ("output", "done"),
        ("output", "42"),
        ("output", "KeyError: 'x'"),
    ]


def test_long_outputs_are_cut_with_a_warning() -> None:
    long = {"output_type": "stream", "text": "y" * 4_000_000}

    parsed = notebook(
        {"cell_type": "markdown", "source": "# T"},
        {"cell_type": "code", "source": "x", "outputs": [long]},
    )

    assert len(parsed.text) < 5_000
    assert parsed.warnings == ["Outputs longer than 4,000 characters were cut: 1."]


def test_json_that_is_no_notebook_is_refused() -> None:
    assert "no cells" in refusal("a.ipynb", b'{"a": 1}')


# --- E-mail ---------------------------------------------------------------------------------------


def message(subject: str = "Pumps", body: str = "See below.\n") -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = subject, "Ann <ann@a.test>", "bob@b.test"
    mail["Date"] = "Fri, 01 Mar 2024 10:00:00 +0100"
    mail.set_content(body)
    return mail


def test_an_email_gives_its_head_body_and_quotations() -> None:
    parsed = read("a.eml", bytes(message(body="Yes, we can.\n\n> Can you come?\n> Soon?\n")))

    assert parsed.title == "Pumps"
    assert parsed.text.startswith(
        "Pumps\n\nFrom: Ann <ann@a.test>\nTo: bob@b.test\nDate: Fri, 01 Mar 2024"
    )
    assert blocks(parsed, BlockKind.QUOTATION) == ["Can you come?\nSoon?"]
    assert parsed.metadata == {
        "from": "Ann <ann@a.test>",
        "to": "bob@b.test",
        "date": "2024-03-01T10:00:00+01:00",
    }


def test_attachments_are_read_below_their_names() -> None:
    mail = message()
    mail.add_attachment("# Plan\n\nStep one.", subtype="markdown", filename="plan.md")
    mail.add_attachment(b"\x7fELF", "application", "octet-stream", filename="tool.bin")

    parsed = read("a.eml", bytes(mail))

    assert headings(parsed) == [(1, "Pumps"), (2, "plan.md"), (3, "Plan")]
    assert "Step one." in paragraphs(parsed)
    assert len(parsed.warnings) == 1
    assert parsed.warnings[0].startswith('The attachment "tool.bin" was not read: Nothing reads')


def test_messages_attached_to_messages_are_read_to_a_depth() -> None:
    mail = message("innermost", "deep words\n")
    for number in range(6):
        outer = message(f"level {number}", f"text {number}\n")
        outer.add_attachment(mail)
        mail = outer

    parsed = read("a.eml", bytes(mail))

    assert "text 2" in parsed.text
    assert "deep words" not in parsed.text
    assert "were attached" in parsed.warnings[0] or "are attached" in parsed.warnings[0]


def test_of_alternatives_one_is_read() -> None:
    mail = message(body="The plain words of this mail here.\n")
    mail.add_alternative("<p>The <b>plain</b> words of this mail here.</p>", subtype="html")

    assert read("a.eml", bytes(mail)).text.count("words of this mail") == 1


# --- Markup ---------------------------------------------------------------------------------------

RST = """\
Manual
======

Start
-----

See :ref:`the plan <plan>` and ``code_x``. To start:

1. Open *it*.

   * slowly

2. Press :class:`~raglan.blocks.Block`.

.. note:: Never dry.

.. code-block:: python
   :linenos:

   a = 1

.. tab-set::

   .. tab-item:: Linux

      Use apt.

.. toctree::

   other

==== =====
Part Net
==== =====
Bolt 1.00
Nut
==== =====

Term
    Its definition.
"""

ORG = """\
#+TITLE: Manual
#+AUTHOR: Ann
* TODO [#A] Start :tag:
:PROPERTIES:
:ID: x
:END:
See [[https://a.test][the plan]] and =code_x=. To start:

1. Open /it/,
   gently.
   - slowly
2. [X] Press.

#+BEGIN_SRC python
a = 1
#+END_SRC
| Part | Net  |
|------+------|
| Bolt | 1.00 |
"""

ASCIIDOC = """\
= Manual
Ann Lee
:product: Pump

== Start

See link:https://a.test[the plan] and `code_x` of {product}. To start:

. Open _it_,
  gently.
** slowly
. Press.

NOTE: Never dry.

[source,python]
----
a = 1
----

[cols="1,1",options="header"]
|===
|Part |Net

|Bolt
|1.00
|===

Term:: Its definition.
"""


@pytest.mark.parametrize(("name", "text"), [("a.rst", RST), ("a.org", ORG), ("a.adoc", ASCIIDOC)])
def test_markup_gives_outline_lists_code_and_tables(name: str, text: str) -> None:
    parsed = read(name, text)

    assert parsed.title == "Manual"
    assert headings(parsed)[-1][1] == "Start"
    assert "the plan and code_x" in parsed.text
    assert [(depth, label) for depth, label, _ in items(parsed)][:3] == [
        (1, "1"),
        (2, ""),
        (1, "2"),
    ]
    lead_ins = [b.lead_in for b in parsed.blocks if b.kind is BlockKind.LIST_ITEM]
    assert lead_ins[0].endswith("To start:")
    assert "Open it" in parsed.text
    assert blocks(parsed, BlockKind.CODE) == ["a = 1"]
    assert next(b.label for b in parsed.blocks if b.kind is BlockKind.CODE) == "python"
    has_header, rows = tables(parsed)[0]
    assert has_header
    assert rows[:2] == [["Part", "Net"], ["Bolt", "1.00"]]
    for markup in ("TODO", ":ID:", "<plan>", "a.test", "{product}", "toctree", "|==="):
        assert markup not in parsed.text


def test_what_sphinx_adds_to_rst_keeps_its_text() -> None:
    parsed = read("a.rst", RST)

    assert items(parsed)[2] == (1, "2", "Press Block.")
    assert "Use apt." in paragraphs(parsed)
    assert "Never dry." in paragraphs(parsed)
    assert "linenos" not in parsed.text


def test_rst_reads_no_other_files() -> None:
    parsed = read(
        "a.rst", "Text.\n\n.. include:: /etc/passwd\n\n.. raw:: html\n   :file: /etc/passwd\n"
    )

    assert parsed.text == "Text."


def test_subtitles_become_paragraphs_with_their_times() -> None:
    srt = (
        "1\n00:00:01,000 --> 00:00:03,000\n<i>The pump</i>\n\n"
        "2\n00:00:03,200 --> 00:00:05,000\nruns well.\n\n"
        "3\n00:01:10,000 --> 00:01:12,000\nLater.\n"
    )

    parsed = read("a.srt", srt)

    assert parsed.text == "The pump runs well.\n\nLater."
    assert headings(parsed) == [(1, "00:00:01"), (1, "00:01:10")]


def test_webvtt_names_its_speakers() -> None:
    vtt = (
        "WEBVTT\n\nNOTE a comment\n\nintro\n00:01.000 --> 00:02.000 align:left\n"
        "<v Ann>Hello &amp; ho"
        "\n\n00:02.000 --> 00:03.000\n<v Bob>Welcome.</v>\n"
    )

    assert paragraphs(read("a.vtt", vtt)) == ["Ann: Hello & ho", "Bob: Welcome."]


def test_a_file_without_subtitles_is_refused() -> None:
    assert refusal("a.srt", b"just words") == "The file holds no subtitles."


def test_list_in_an_email_of_plain_text_has_items_with_their_lead_in() -> None:
    mail = b"From: a@b\nSubject: Plan\n\nPlease bring:\n- water\n- bread\n\n> so\n\nBye\n"

    parsed = read("a.eml", mail)

    items = [
        (parsed.text[block.start : block.end], block.lead_in)
        for block in parsed.blocks
        if block.kind is BlockKind.LIST_ITEM
    ]
    assert items == [("- water", "Please bring:"), ("- bread", "Please bring:")]
