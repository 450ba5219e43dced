"""HTML: read as a browser shows it."""

from __future__ import annotations

import pytest
from parsed_documents import blocks, headings, items, paragraphs, read, tables
from raglan.blocks import BlockKind


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<form><h1>Travel</h1><p>120 euro.</p></form>", "Travel\n\n120 euro."),
        ("<button>How long?</button><div><p>Two years.</p></div>", "How long?\n\nTwo years."),
        (
            "<p><ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp>字<rt>じ</rt></ruby>の本</p>",
            "漢字(かんじ)の本",
        ),
        ("<p>a</p><p style='color:red; display : none'>b</p><p hidden>c</p>", "a"),
        ("<p>a</p><div style='visibility:hidden'>b</div><template>c</template>", "a"),
        ("<nav>menu</nav><div role=navigation>menu</div><p>a", "a"),
        ("<p>a<br>b   c\n d</p>", "a\nb c d"),
        ("<p>E = mc<sup>2</sup>, H<sub>2</sub>O</p>", "E = mc2, H2O"),
        ("<label>Name <input value='Ann'></label><input type=hidden value=x>", "Name Ann"),
        ("<select><option>one<option selected>two</select>", "two"),
        ("<details><summary>More</summary><p>Inside.</p></details>", "More\n\nInside."),
        ("<p>a<!-- no --><script>no</script>b</p>", "ab"),
        ("<dialog>no</dialog><dialog open>yes</dialog>", "yes"),
        ("<p>one<p>two", "one\n\ntwo"),
    ],
)
def test_what_a_browser_shows_is_stored(page: str, text: str) -> None:
    assert read("a.html", page).text == text


def test_lists_have_numbers_depths_and_lead_ins() -> None:
    parsed = read(
        "a.html",
        "<p>To start:</p><ol start=3><li>Open it.<ul><li>slowly</ul><li>Press.<p>Wait.</p></ol>"
        "<ol type=a><li>x<li value=4>y</ol>",
    )

    assert parsed.text == (
        "To start:\n\n3. Open it.\n   - slowly\n4. Press.\n\n   Wait.\n\na. x\n4. y"
    )
    assert items(parsed) == [
        (1, "3", "Open it."),
        (2, "", "slowly"),
        (1, "4", "Press."),
        (1, "a", "x"),
        (1, "4", "y"),
    ]
    found = [b for b in parsed.blocks if b.kind is BlockKind.LIST_ITEM]
    assert [b.lead_in for b in found] == ["To start:", "Open it.", "To start:", "", ""]
    assert parsed.text[found[0].start : found[0].end] == "3. Open it.\n   - slowly"


def test_a_term_and_its_definitions_are_one_item() -> None:
    parsed = read("a.html", "<dl><dt>Head<dd>Of water.<dd>Of mail.<dt>Pump<dd>Moves it.</dl>")

    assert blocks(parsed, BlockKind.LIST_ITEM) == [
        "- Head\n\n  Of water.\n\n  Of mail.",
        "- Pump\n\n  Moves it.",
    ]


def test_spanning_cells_stand_in_every_row_that_they_cover() -> None:
    parsed = read(
        "a.html",
        "<table><caption>Prices</caption><thead><tr><th rowspan=2>Part<th colspan=2>Price"
        "<tr><th>net<th>gross</thead><tr><td rowspan=2>Pump<td>40<td>48<tr><td>45<td>54"
        "<tr><td colspan=3>in euro</table>",
    )

    assert paragraphs(parsed) == ["Prices"]
    assert tables(parsed) == [
        (
            True,
            [
                ["Part", "Price net", "Price gross"],
                ["Pump", "40", "48"],
                ["Pump", "45", "54"],
                ["in euro", "", ""],
            ],
        )
    ]


def test_a_bar_inside_a_cell_does_not_cut_it() -> None:
    parsed = read("a.html", "<table><tr><th>a<th>b<tr><td>x|y<td>z</table>")

    assert parsed.text.splitlines()[2] == r"| x\|y | z |"
    assert len(tables(parsed)[0][1][1]) == 2


def test_a_table_for_layout_is_no_table() -> None:
    parsed = read("a.html", "<table><tr><td><h1>T</h1><td><table><tr><td>a<td>b</table></table>")

    assert headings(parsed) == [(1, "T")]
    assert tables(parsed) == [(False, [["a", "b"]])]


def test_code_keeps_its_lines_and_language() -> None:
    parsed = read("a.html", '<pre><code class="language-py">if x:\n    <b>y</b>()</code></pre>')

    code = next(b for b in parsed.blocks if b.kind is BlockKind.CODE)
    assert (parsed.text, code.label) == ("if x:\n    y()", "py")


def test_a_quotation_holds_its_paragraphs() -> None:
    parsed = read("a.html", "<blockquote><p>One.</p><p>Two.</p></blockquote><p>Mine.</p>")

    assert blocks(parsed, BlockKind.QUOTATION) == ["One.\n\nTwo."]
    assert paragraphs(parsed) == ["One.", "Two.", "Mine."]


def test_title_and_author_come_from_the_head() -> None:
    parsed = read("a.html", "<title>T</title><meta name=author content='Ann Lee'><h1>H</h1>")

    assert (parsed.title, parsed.metadata) == ("T", {"author": "Ann Lee"})
    assert read("a.html", "<h1>H</h1>").title == "H"


def test_deep_nesting_is_read() -> None:
    assert read("a.html", "<b>" * 50_000 + "deep").text == "deep"
