"""A set of identifiers to find, made by a seed: each in one text on another subject.

Among them stand texts about error codes, which look like every question about an identifier, to a
model of meaning as well as by words. What an exact match is worth shows here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LONG_CHARS: Final = 700

QUESTIONS: Final = ("{}", "What does {} mean?", "How do I fix error code {}?", "what is {}")

_SUBJECTS: Final = (
    "The canteen serves lunch from 11:30 to 14:00 and closes early on Fridays.",
    "Bicycles are parked behind the main building; the rack by the loading dock stays free.",
    "The garden club meets every second Tuesday and plants tomatoes along the south wall.",
    "Parental leave is requested eight weeks ahead through the personnel office.",
    "Blood donors get half a day off when the mobile unit visits the site in autumn.",
    "The choir rehearses in room 4 and is looking for two tenors.",
    "Visitors sign in at the reception desk and wear a badge at all times.",
    "The library keeps newspapers for two weeks before they are recycled.",
    "Ski trips leave from the north gate; bring warm clothes and a packed lunch.",
    "The roof terrace is closed in strong wind, which the caretaker announces by noon.",
)
_MORE: Final = (
    "Ask the caretaker for the key and return it before six in the evening.",
    "The rules were agreed with the staff council and are reviewed once a year.",
    "Costs are shared by everybody who takes part, and the treasurer keeps the list.",
    "Older editions of this notice are no longer valid and should be thrown away.",
    "Photographs of last year's event hang in the corridor on the second floor.",
    "Please leave the place as you found it, and report damage to the front office.",
    "Children are welcome if they are accompanied by an adult at all times.",
    "A map of the site with all entrances is printed on the back of this leaflet.",
)
_FAULTS: Final = (
    "timeout", "overflow", "handshake failure", "checksum mismatch", "missing permission",
    "unknown parameter", "expired certificate", "full disk", "lost connection",
)  # fmt: skip
_COMPONENTS: Final = (
    "gateway", "scheduler", "cache", "database", "message queue", "parser", "web server",
    "printer driver", "backup agent", "firewall",
)  # fmt: skip


@dataclass(frozen=True)
class IdentifierSet:
    """The texts by id, in random order, and for each identifier the id of the text that has it."""

    texts: dict[str, str]
    holders: dict[str, str]


def make(
    *, identifiers: int = 50, others: int = 400, is_long: bool = False, seed: int = 0
) -> IdentifierSet:
    """Make a set; the same arguments give the same one.

    Args:
        others: Number of texts about error codes, each with a code of its own.
        is_long: Texts have about 700 characters instead of 100 to 200.
    """
    rng = random.Random(seed)
    names = _names(rng, identifiers)
    texts = {}
    codes = rng.sample(range(10_000, 100_000), others)
    for number, code in enumerate(codes):
        name = f"{rng.choice('ABCDEFGH')}{rng.choice('ABCDEFGH')}-{code}"
        text = (
            f"Error code {name} means a {rng.choice(_FAULTS)} in the {rng.choice(_COMPONENTS)}. "
            f"What does {name} mean for users? They see the error and should contact support."
        )
        texts[f"error-{number}"] = _filled(text, lambda: _about_errors(rng), is_long)
    for number, name in enumerate(names):
        text = f"{rng.choice(_SUBJECTS)} The notice is filed under {name}."
        texts[f"notice-{number}"] = _filled(text, lambda: rng.choice(_MORE), is_long)
    order = list(texts)
    rng.shuffle(order)
    return IdentifierSet(
        {id_: texts[id_] for id_ in order},
        {name: f"notice-{number}" for number, name in enumerate(names)},
    )


def _names(rng: random.Random, count: int) -> list[str]:
    kinds: list[Callable[[], str]] = [
        lambda: f"{rng.choice('KQZW')}{rng.choice('XVYJ')}-{rng.randint(10_000, 99_999)}",
        lambda: (
            f"ERR_{rng.choice(('QUOTA', 'MESH', 'LEASE', 'SHARD'))}"
            f"_{rng.choice(('DRIFT', 'STALL', 'SKEW', 'LEAK'))}_{rng.randint(10, 99)}"
        ),
        lambda: (
            f"{rng.choice(('resolve', 'flush', 'rotate', 'drain'))}"
            f"{rng.choice(('Lease', 'Cursor', 'Ledger', 'Vault'))}"
            f"{rng.choice(('ById', 'Async', 'Batch', 'Token'))}"
        ),
        lambda: f"0x{rng.randint(2**31, 2**32 - 1):08X}",
        lambda: f"v{rng.randint(2, 19)}.{rng.randint(1, 40)}.{rng.randint(1, 30)}",
        lambda: (
            f"{rng.choice(('max', 'min', 'soft', 'hard'))}"
            f"_{rng.choice(('lease', 'vault', 'cursor'))}_{rng.choice(('drift', 'skew', 'lag'))}_ms"
        ),
    ]
    names: dict[str, None] = {}
    while len(names) < count:
        names[kinds[len(names) % len(kinds)]()] = None
    return list(names)


def _about_errors(rng: random.Random) -> str:
    return (
        f"It is raised by the {rng.choice(_COMPONENTS)} after a {rng.choice(_FAULTS)}, and the "
        f"error code means that the operator should restart the {rng.choice(_COMPONENTS)}."
    )


def _filled(text: str, more: Callable[[], str], is_long: bool) -> str:
    while is_long and len(text) < LONG_CHARS:
        text += " " + more()
    return text
