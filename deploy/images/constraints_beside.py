"""Print constraints for an environment that holds packages already, as the vLLM image does.

What is installed keeps its version; every other package gets that of the constraints file given.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints(held: dict[str, str], pinned: str) -> list[str]:
    """One line a package, `name==version`.

    Args:
        held: version of each installed package, by its canonical name.
        pinned: content of a constraints file.
    """
    lines = [line.strip() for line in pinned.splitlines() if "==" in line]
    others = [line for line in lines if _canonical(line.partition("==")[0]) not in held]
    # A local version, as in 2.13.0+cu130, is none that an index knows.
    return [*(f"{name}=={version.partition('+')[0]}" for name, version in held.items()), *others]


def main() -> None:
    """Command line: `python constraints_beside.py FILE`."""
    held = {_canonical(each.name): each.version for each in distributions()}
    sys.stdout.write("\n".join(constraints(held, Path(sys.argv[1]).read_text())) + "\n")


if __name__ == "__main__":
    main()
