"""Links in the documentation lead to files and headings that exist."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

REPOSITORY = Path(__file__).parents[3]
PAGES = [
    REPOSITORY / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    if (REPOSITORY / name).exists()
]


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def links(page: Path) -> Iterator[str]:
    """Targets of links and images that lead into the repository."""
    for block in tokens(page):
        for token in block.children or []:
            target = token.attrs.get("href", token.attrs.get("src"))
            if target and not re.match(r"[a-z][a-z+.-]*:", str(target)):
                yield unquote(str(target))


@cache
def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    names = set()
    blocks = tokens(page)
    for opening, inline in itertools.pairwise(blocks):
        if opening.type == "heading_open":
            text = "".join(token.content for token in inline.children or [])
            name = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            number = found.get(name, 0)
            found[name] = number + 1
            names.add(f"{name}-{number}" if number else name)
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md", "docs/architecture.md"])
def test_every_path_in_code_exists(name: str) -> None:
    """A path in back-quotes that begins with a folder of the repository names a file or folder."""
    folders = {path.name for path in REPOSITORY.iterdir() if path.is_dir()}
    paths = [
        token.content
        for block in tokens(REPOSITORY / name)
        for token in block.children or []
        if token.type == "code_inline" and re.fullmatch(r"[\w.-]+/[\w./-]+", token.content)
    ]
    missing = [
        path for path in paths if path.split("/")[0] in folders and not (REPOSITORY / path).exists()
    ]
    assert missing == []


def test_the_walks_name_what_their_files_define() -> None:
    """Each numbered step is `[file](link) `name`: ...`; the file defines the name."""
    page = REPOSITORY / "docs" / "architecture.md"
    text = page.read_text(encoding="utf-8")
    steps = re.findall(r"^\d+\. \[[^]]+\]\(([^)]+)\) `(\w+)`:", text, re.MULTILINE)
    assert len(steps) == len(re.findall(r"^\d+\. ", text, re.MULTILINE)) > 20
    missing = []
    for link, name in steps:
        path = page.parent / link
        code = path.read_text(encoding="utf-8") if path.exists() else ""
        if not re.search(rf"^\s*(?:async )?(?:def|class) {name}\b", code, re.MULTILINE):
            missing.append(f"{link} {name}")
    assert missing == []
