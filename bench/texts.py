"""Real texts for load: questions and passages of the evaluation sets, none given out twice."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

DATA = Path(
    os.environ.get("EVAL_DATA_DIR")
    or Path(__file__).resolve().parent.parent.parent / "shared" / "data"
)
SETS = ("scifact", "squad", "cranfield")

_WINDOW_WORDS = (6, 16)


class NotEnough(Exception):
    """More texts were asked for than there are."""


class Texts:
    """Distinct texts in an order that `seed` decides; what was given out does not come again."""

    def __init__(self, seed: int = 0) -> None:
        """Read the sets.

        Raises:
            SystemExit: they are not there; the sentence says where they are looked for.
        """
        if not all((DATA / name / "corpus.jsonl").is_file() for name in SETS):
            raise SystemExit(
                f"The evaluation sets {', '.join(SETS)} are not in {DATA}: set EVAL_DATA_DIR to "
                "their folder (BEIR layout: corpus.jsonl, queries.jsonl)."
            )
        rows = [row for name in SETS for row in _rows(DATA / name / "corpus.jsonl")]
        bodies = {row["text"] for row in rows if row["text"].strip()}
        titles = {row["title"] for row in rows if row["title"].strip()} - bodies
        asked = {row["text"] for name in SETS for row in _rows(DATA / name / "queries.jsonl")}
        shuffled = random.Random(seed)
        self._bodies, self._titles, self._asked = map(sorted, (bodies, titles, asked))
        for texts in (self._bodies, self._titles, self._asked):
            shuffled.shuffle(texts)
        self._windows = self._cut(shuffled)

    def questions(self, count: int) -> list[str]:
        """Questions as people asked them: 10-30 tokens."""
        return _take(self._asked, count, "questions")

    def passages(self, count: int) -> list[str]:
        """Abstracts and paragraphs: 40-512 tokens."""
        return _take(self._bodies, count, "passages")

    def mixed(self, count: int) -> list[str]:
        """Three passages to each title: every length from 3 to 512 tokens."""
        short = count // 4
        both = self.passages(count - short) + _take(self._titles, short, "titles")
        random.Random(count).shuffle(both)
        return both

    def snippets(self, count: int) -> list[str]:
        """Six to sixteen words in a row out of passages: as short as questions, and many more."""
        return [next(self._windows) for _ in range(count)]

    def _cut(self, source: random.Random) -> Iterator[str]:
        given: set[str] = set()
        words = [text.split() for text in self._bodies]
        while True:
            text = source.choice(words)
            size = source.randint(*_WINDOW_WORDS)
            start = source.randrange(max(1, len(text) - size))
            window = " ".join(text[start : start + size])
            if window not in given:
                given.add(window)
                yield window


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _take(texts: list[str], count: int, what: str) -> list[str]:
    if len(texts) < count:
        raise NotEnough(f"{count} more {what} are needed; {len(texts)} are left of the sets.")
    taken, texts[:] = texts[:count], texts[count:]
    return taken
