"""Makes the generator's list of common English words from SCOWL, by Kevin Atkinson.

SCOWL sorts English words by how common they are: size 10 holds the most common, 95 the rarest. Of
words with one stem the most common is kept.

    apt-get download scowl && dpkg-deb -x scowl_*.deb scowl
    python bench/common_words.py scowl/usr/share/dict/scowl
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Final

from raglan.terms import stem

LIST: Final = Path(__file__).parent.parent / (
    "services/generator/src/raglan_generator/common_words.txt"
)
SIZES: Final = (10, 20, 35, 40, 50)
LISTS: Final = ("english-words", "american-words")
HEADER: Final = """\
Common English words by size of SCOWL (2020.12.07), the most common first; of one stem one word.
Made by bench/common_words.py.

Copyright 2000-2011 by Kevin Atkinson. Permission to use, copy, modify, distribute and sell these
word lists, the associated scripts, the output created from the scripts, and its documentation for
any purpose is hereby granted without fee, provided that the above copyright notice appears in all
copies and that both that copyright notice and this permission notice appear in supporting
documentation. Kevin Atkinson makes no representations about the suitability of this array for any
purpose. It is provided "as is" without express or implied warranty.
"""


def words(folder: Path, size: int) -> list[str]:
    """Plain words of one size, in lower case."""
    texts = [(folder / f"{name}.{size}").read_text("latin-1") for name in LISTS]
    return sorted(word for word in " ".join(texts).lower().split() if word.isascii())


def main() -> None:
    """Write the list."""
    folder, known, sections = Path(sys.argv[1]), set[str](), [HEADER]
    for size in SIZES:
        kept: dict[str, str] = {}
        for word in sorted(words(folder, size), key=len):
            stemmed = stem(word, "en")
            if word.isalpha() and len(word) > 1 and stemmed not in known:
                kept.setdefault(stemmed, word)
        known.update(kept)
        lines = textwrap.fill(" ".join(sorted(kept.values())), 100, break_on_hyphens=False)
        sections.append(f"[{size}]\n{lines}\n")
    LIST.write_text("\n".join(sections), encoding="ascii")


if __name__ == "__main__":
    main()
