"""Kinds of English questions, by the words that they ask with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FILLERS: Final = _words(
    "please tell explain describe say give show list name know want like would could may might "
    "must shall possible able mean means meant meaning many much let us get gets got getting "
    "does done case called kind type sort per away ok hello hi thanks"
)
"""Words of a question that say nothing of its subject."""

_AUXILIARIES: Final = _words(
    "is are was were do does did can could will would should must may might shall has have had "
    "am isn aren wasn weren don doesn didn won shouldn"
)
_FORMS: Final = {
    "who": "who", "whom": "who", "whose": "whose", "when": "when", "where": "where", "why": "why",
    "what": "what", "which": "what", "how": "how",
}  # fmt: skip
_PHRASES: Final = {
    ("what", "time"): "when", ("what", "year"): "when", ("which", "year"): "when",
    ("what", "date"): "when", ("what", "reason"): "why", ("which", "reason"): "why",
    ("how", "come"): "why", ("what", "city"): "where", ("which", "city"): "where",
    ("what", "country"): "where", ("which", "country"): "where", ("what", "place"): "where",
    ("which", "place"): "where", ("how", "frequently"): "how often",
    ("how", "big"): "how large", ("how", "fast"): "how fast", ("how", "quickly"): "how fast",
}  # fmt: skip
"""Two words that ask as another form does."""

_OF_HOW: Final = _words(
    "many much often long far old large tall high deep wide heavy soon likely well early late hot "
    "cold strong expensive big small close near thick fast few little high hard good bad"
)
"""Words behind `how` that ask for an amount."""


def question_form(words: Sequence[str]) -> tuple[str, frozenset[str]]:
    """Return what kind of question it is, and the words that ask.

    Args:
        words: of the question, casefolded.

    Returns:
        A question word, with the word of the amount after `how`; `whether` for yes or no; `what`
        where nothing asks, as in "opening hours of the museum".
    """
    if words and words[0] in _AUXILIARIES and not {"tell", "explain"} & set(words[:5]):
        return "whether", frozenset(words[:1])
    for position, word in enumerate(words):
        form = _FORMS.get(word)
        if form is None:
            continue
        following = words[position + 1] if position + 1 < len(words) else ""
        if (phrase := _PHRASES.get((word, following))) is not None:
            return phrase, frozenset((word, following, *phrase.split()))
        if form == "how" and following in _OF_HOW:
            return f"how {following}", frozenset((word, following))
        return form, frozenset((word,))
    return "what", frozenset()
