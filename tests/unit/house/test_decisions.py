"""Decisions are numbered, dated, have a status, and stand in the index."""

from __future__ import annotations

import re
from pathlib import Path

DECISIONS = Path(__file__).parents[3] / "docs" / "decisions"
LINE = re.compile(r"^\*Decision (\d+), (\d{4}-\d\d-\d\d), (?:accepted|replaced by \d+)\b.*\*$")
ROW = re.compile(r"^\| (\d+) \| (\d{4}-\d\d-\d\d) \|", re.MULTILINE)


def test_the_index_numbers_every_decision_once() -> None:
    index = ROW.findall((DECISIONS / "README.md").read_text(encoding="utf-8"))
    assert sorted(int(number) for number, _ in index) == list(range(1, len(index) + 1))


def test_every_page_is_numbered_as_in_the_index() -> None:
    index = dict(ROW.findall((DECISIONS / "README.md").read_text(encoding="utf-8")))
    for page in sorted(set(DECISIONS.glob("*.md")) - {DECISIONS / "README.md"}):
        lines = page.read_text(encoding="utf-8").splitlines()
        found = [match for line in lines if (match := LINE.match(line))]
        assert found, f"{page.name} has no line such as *Decision 7, 2026-11-21, accepted.*"
        assert [index.get(match[1]) for match in found] == [match[2] for match in found], page.name
