"""Write `secret_formats.toml` from a gitleaks configuration on standard input.

Kept are the rules of formats that are recognised by a fixed part of the secret itself. Rules that
go by the name before a secret, or search whole files, are left out: `raglan.redaction` goes by
names of its own, and a log line must stay cheap.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

TARGET: Final = Path(__file__).parent / "src/raglan/secret_formats.toml"

HEAD: Final = """\
# Formats of secrets, from the rules of gitleaks {version}; written by `make secret-formats`.
#
# Copyright (c) 2019 Zachary Rice. Permission is hereby granted, free of charge, to any person
# obtaining a copy of this software and associated documentation files (the "Software"), to deal in
# the Software without restriction, including without limitation the rights to use, copy, modify,
# merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons
# to whom the Software is furnished to do so, subject to the following conditions: the above
# copyright notice and this permission notice shall be included in all copies or substantial
# portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS
# OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A
# PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE
# LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
# OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN
# THE SOFTWARE.
"""

# The end of a secret in a source file. In a log line it may be a comma or a full stop.
_AFTER: Final = re.compile(r"\(\?:\[\\x60'\"\\s;\]\|\\\\\[nr\]\|\$(?:\|\\b)?\)$")
_BEFORE: Final = re.compile(r"^(\(\?i\))?\\b")
# An escaped line break ends in a letter, so that no word begins after it.
_WORD_BEGINS: Final = r"(?:\b|(?<=\\[nrt]))"
_BY_NAME_OR_FILE: Final = re.compile(r"\.\*|\{0,50\}\?|^\(\?i\)\[|\(\?s:|<add|=>|https\?")
_NEEDS_ITS_NAME: Final = {"airtable", "facebook", "sourcegraph"}
_OURS: Final = {"private-key"}


def kept(rule: dict[str, Any]) -> bool:
    """Return whether a line can be searched for the rule's secret alone."""
    pattern = rule.get("regex", "")
    return not (
        not pattern
        or rule["id"] in _OURS
        or _BY_NAME_OR_FILE.search(pattern)
        or not _NEEDS_ITS_NAME.isdisjoint(rule["keywords"])
    )


def adapted(pattern: str) -> str:
    """`pattern` for a line of a log."""
    return _BEFORE.sub(lambda flags: (flags[1] or "") + _WORD_BEGINS, _AFTER.sub("", pattern))


def main() -> None:
    """Write the file."""
    version = sys.argv[1]
    rules = tomllib.loads(sys.stdin.read())["rules"]
    lines = [HEAD.format(version=version)]
    for rule in filter(kept, rules):
        keywords = ", ".join(f'"{word}"' for word in rule["keywords"])
        lines.append(
            f"[{rule['id']}]\nkeywords = [{keywords}]\npattern = '''{adapted(rule['regex'])}'''\n"
        )
    TARGET.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
