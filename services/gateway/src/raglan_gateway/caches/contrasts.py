"""English words that have an opposite, units, and words that say the same.

Each maps to one word of its meaning, so that `larger` and `bigger` agree, and `smaller` does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final


def by_word(groups: str) -> Iterator[tuple[str, str]]:
    """Yield each word with the first of its group; `;` parts the groups."""
    for group in groups.split(";"):
        words = group.split()
        for word in words:
            yield word, words[0]


CONTRASTS: Final[Mapping[str, str]] = dict(
    by_word(
        "more greater; less fewer; most greatest; least fewest; "
        "larger bigger; smaller; largest biggest; smallest; higher taller; lower; "
        "highest tallest; lowest; high; low; longer; shorter; longest; shortest; long; short; "
        "faster quicker; slower; fastest quickest; slowest; fast quick; slow; "
        "older; newer younger; oldest earliest; newest latest youngest; old; new young; "
        "earlier; later; early; late; better; worse; best; worst; good; bad; "
        "cheaper; cheapest; cheap; expensive costly; "
        "maximum max maximal upper; minimum min minimal; "
        "before; after; until till; since; above over; below under; "
        "inside within; outside; out; off; up; down; "
        "left; right; front; back; top; bottom; first initial; last final; next; previous; "
        "north northern; south southern; east eastern; west western; "
        "increase increases increased increasing rise rises rose risen grow grew grown; "
        "decrease decreases decreased decreasing fall falls fell fallen drop dropped drops decline "
        "declined declines reduce reduced shrink; "
        "import imports imported; export exports exported; upload uploads uploaded; "
        "download downloads downloaded; encode encodes encoded; decode decodes decoded; "
        "encrypt encrypted; decrypt decrypted; compress; decompress; "
        "enable enabled enables; disable disabled disables; allow allowed permitted; "
        "forbid forbidden prohibited banned denied; "
        "open opens opened opening; close closes closed closing; "
        "start starts started begin begins began; "
        "stop stops stopped end ends ended finish finished; "
        "add adds added adding; remove removes removed delete deletes deleted drop; "
        "create creates created make makes made; destroy destroyed; "
        "install installs installed; uninstall uninstalls; "
        "lock locks locked; unlock unlocks unlocked; push; pull; read reads; write writes; "
        "input inputs; output outputs; send sends sent; receive receives received; "
        "buy buys bought; sell sells sold; win wins won; lose loses lost; "
        "join joins joined enter enters entered; leave leaves left exit quit; "
        "ascend; descend; include includes included; exclude excludes excluded; "
        "accept accepted; reject rejected refuse refused; pass passed; fail failed; "
        "present; absent missing; required mandatory; optional voluntary; "
        "common frequent; rare; advantage advantages benefit benefits pros; "
        "disadvantage disadvantages drawback drawbacks cons; "
        "merge merged; split; internal; external; public; private; "
        "mother; father; son; daughter; men man male boys; women woman female girls; "
        "husband; wife; king; queen; parent; child; "
        "born birth; died death dead dies; alive; full; empty; hot warm; cold cool; "
        "same equal; different; alone; together; always; sometimes; only; also; all"
    )
)
"""Words with an opposite -> the one that stands for all of the same meaning."""

DIRECTIONS: Final[Mapping[str, str]] = dict(
    by_word("from; to into onto toward towards; for; with via using; against")
)
"""Words that say how what follows takes part -> the one that stands for all of the same meaning."""

UNITS: Final[Mapping[str, str]] = dict(
    by_word(
        "second seconds sec; millisecond milliseconds ms; minute minutes; hour hours; day days "
        "daily; week weeks weekly; month months monthly; quarter quarters quarterly; "
        "year years yearly annual annually; decade decades; century centuries; "
        "metre metres meter meters; centimetre centimetres centimeter centimeters cm; "
        "millimetre millimetres mm; kilometre kilometres kilometer kilometers km; mile miles; "
        "foot feet ft; inch inches; yard yards; litre litres liter liters; gallon gallons; ml; "
        "gram grams; milligram milligrams mg; kilogram kilograms kg; ton tons tonne tonnes; "
        "pound pounds lb lbs; ounce ounces; celsius; fahrenheit; kelvin; "
        "euro euros eur \u20ac; dollar dollars usd $; \u00a3; yen; franc francs; "
        "percent % percentage; share; number; amount; "
        "byte bytes; kb; mb megabyte megabytes; gb gigabyte gigabytes; tb terabyte terabytes; "
        "knots; mph; kmh; watt watts; volt volts; ampere amperes; hertz; bar; "
        "monday mondays; tuesday tuesdays; wednesday; thursday; friday; saturday; sunday; "
        "weekday weekdays; weekend weekends; morning; noon; evening; night; today; tomorrow; "
        "yesterday; january; february; march; april; june; july; august; september; october; "
        "november; december; spring; summer; autumn; winter"
    )
)
"""Units and parts of the calendar -> the one that stands for all spellings."""

SYNONYMS: Final[Mapping[str, str]] = dict(
    by_word(
        "need needs needed require requires; store stored save saved; "
        "cost costs price; find found; use used; colour color; license licence; "
        "employee employees staff; configure configured set setup; cause caused reason; "
        "choose chosen decide decided; author writer; founder founded; "
        "backup; show shows display; error errors; happen happens; work works"
    )
)
"""Words that say the same in a question -> the one that stands for all."""

NEGATING_PREFIXES: Final = ("un", "in", "im", "ir", "il", "dis", "non", "non-", "de", "mis", "anti")

WITHOUT: Final = frozenset(
    {"without", "except", "excluding", "unless", "lack", "lacks", "lacking", "lacked", "free"}
)
"""Words that negate what follows them."""
