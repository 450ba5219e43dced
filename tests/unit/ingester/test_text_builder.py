"""The builder of texts: whatever is written, every offset is exact."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from parsed_documents import blocks, check_offsets, items, tables
from raglan.blocks import BlockKind, column_names
from raglan_ingester.parsers.text_builder import MAX_DEPTH, TextBuilder

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
STEPS = st.one_of(
    st.tuples(st.just("paragraph"), TEXTS),
    st.tuples(st.just("code"), TEXTS),
    st.tuples(st.just("heading"), TEXTS),
    st.tuples(st.just("section"), TEXTS),
    st.tuples(st.just("page"), st.integers(1, 9)),
    st.tuples(st.just("table"), st.lists(st.lists(TEXTS, max_size=3), max_size=3)),
    st.tuples(st.sampled_from(["open_list", "close", "open_item", "open_quotation"]), st.none()),
)


@given(st.lists(STEPS, max_size=25))
def test_blocks_are_in_order_nested_and_hold_what_was_written(
    steps: list[tuple[str, object]],
) -> None:
    builder = TextBuilder()
    closers = []
    for name, value in steps:
        if name in ("heading", "section"):
            getattr(builder, name)(1, value)
        elif name == "table":
            builder.table(value, has_header=True)  # type: ignore[arg-type]
        elif name == "close":
            if closers:
                closers.pop()()
        elif name.startswith("open"):
            getattr(builder, name)()
            closers.append(getattr(builder, name.replace("open", "close")))
        else:
            getattr(builder, name)(value)
    while closers:
        closers.pop()()

    parsed = builder.build()

    check_offsets(parsed)
    containers = [b for b in parsed.blocks if b.kind in (BlockKind.LIST_ITEM, BlockKind.QUOTATION)]
    for outer in containers:
        for block in parsed.blocks:
            assert block.end <= outer.end or block.start >= outer.end or block.start <= outer.start


def test_a_table_of_many_rows_is_several_blocks_with_the_same_columns() -> None:
    builder = TextBuilder()
    builder.table([["a", "b"], *([str(n), "x"] for n in range(450))], has_header=True)

    parsed = builder.build()

    assert [len(rows) for _, rows in tables(parsed)] == [200, 200, 51]
    assert {column_names(parsed.text, block) for block in parsed.blocks} == {("a", "b")}
    assert [block.has_header for block in parsed.blocks] == [True, False, False]


def test_items_nest_and_stay_tight() -> None:
    builder = TextBuilder()
    builder.list_item("one", depth=1, label="1")
    builder.list_item("deep", depth=3)
    builder.list_item("two", depth=1, label="2")
    builder.paragraph("more of two")
    builder.end_lists()
    builder.paragraph("after")

    parsed = builder.build()

    assert parsed.text == "1. one\n   - deep\n2. two\n\n   more of two\n\nafter"
    assert next(label for _, label, _ in items(parsed)) == "1"
    assert blocks(parsed, BlockKind.LIST_ITEM)[0] == "1. one\n   - deep"


def test_an_embedded_document_keeps_its_structure() -> None:
    inner = TextBuilder()
    inner.heading(1, "Plan")
    inner.table([["a", "b"], ["1", "2"]], has_header=True)
    builder = TextBuilder()
    builder.paragraph("Before.")
    builder.embed(inner.build(), 2)

    parsed = builder.build()

    check_offsets(parsed)
    assert [(h.level, h.text) for h in parsed.headings] == [(3, "Plan")]
    assert tables(parsed) == [(True, [["a", "b"], ["1", "2"]])]


def test_lists_deeper_than_the_limit_are_read_at_the_limit() -> None:
    builder = TextBuilder()
    for depth in range(1, 60):
        builder.list_item(f"item {depth}", depth=depth)

    levels = [b.level for b in builder.build().blocks if b.kind is BlockKind.LIST_ITEM]

    assert len(levels) == 59
    assert max(levels) == MAX_DEPTH
