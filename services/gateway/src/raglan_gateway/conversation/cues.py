"""Words by which a question refers to the turns before it, by ISO 639-1 code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cues:
    """Words of one language."""

    continuation: re.Pattern[str]
    """Beginning of a question that goes on with the one before."""
    pronouns: frozenset[str]
    """Words that stand for something named before."""
    determiners: frozenset[str]
    """Pronouns that may also stand before their noun, or open a clause."""
    final: frozenset[str]
    """Adverbs that refer back as the last word of a question."""
    prepositions: frozenset[str]
    expletive: re.Pattern[str]
    """Phrases in which a pronoun stands for nothing."""
    general: frozenset[str]
    """Words that say of no subject what it is."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _beginning(*phrases: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{'|'.join(phrases)})(?![\w'])[\s,:]*", re.IGNORECASE)


def _phrase(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


_NEVER: Final = re.compile(r"(?!)")

CUES: Final = {
    "en": Cues(
        _beginning(
            "(?:and|but|so|ok|okay) (?:what|how) about", "what about", "how about", "same for",
            "and also", "and", "or", "but", "also",
        ),
        _words("it its they them their theirs this that these those one ones he she him her his"),
        _words("this that these those one its their"),
        _words("then instead otherwise again there"),
        _words("for on in with at from to by under without using via inside through"),
        _phrase(
            r"\b(?:is|was|be|would|does|will) it (?:ok|okay|possible|necessary|better|safe|worth|"
            r"make sense|take|matter)\b|\bit(?:'s| is) (?:possible|ok|necessary)\b|\bno one\b|"
            r"\bone (?:of|command|line|go)\b|\b(?:each|every|any|some|which) one\b|\bthat is\b"
        ),
        _words(
            "add allow allowed apply become best call called can case change command configure "
            "default difference different disable do enable enabled error example exist find "
            "first fix force get give go happen happens help kind like limit list long look make "
            "many mean means method much name need needed new number option options order part "
            "possible problem reason remove required result run said second set setting settings "
            "show step steps support supported take tell thing third turn type use used using "
            "value values version want way work works write wrong still always never already "
            "explain describe details detail please thanks "
            "may might must shall another others ever own raise lower override single"
        ),
    ),
    "de": Cues(
        _beginning("und was ist mit", "und wie ist es mit", "was ist mit", "und", "oder", "aber"),
        _words(
            "er sie es ihn ihm ihr ihnen sein seine seinen ihre ihren das dies diese diesen dieser "
            "dieses jene darin damit davon dafür dazu darauf"
        ),
        _words("das dies diese diesen dieser dieses jene sein seine seinen ihre ihren ihr sie es"),
        _words("dann stattdessen sonst wieder dort"),
        _words("für auf in mit bei von unter ohne aus im am"),
        _phrase(r"\b(?:ist|gibt|geht|wäre) es (?:möglich|nötig|besser|eine?n?)\b|\bgibt es\b"),
        _words(
            "gehen geht machen macht ändern ändere einstellen setzen standard option wert "
            "funktioniert bedeutet heißt beispiel befehl unterschied verwenden benutzen nutzen"
        ),
    ),
    "fr": Cues(
        _beginning("et qu'en est-il de", "et pour ce qui est de", "et", "ou", "mais"),
        _words("il elle ils elles lui leur leurs son sa ses le la les ce cela ça celui celle ceux"),
        _words("le la les ce son sa ses leur leurs il elle"),
        _words("alors sinon encore là"),
        _words("pour sur dans avec chez de sous sans en par"),
        _phrase(r"\bil (?:y a|faut|est possible)\b|\best-il possible\b|\bce que\b"),
        _words(
            "faire fait changer modifier valeur défaut option exemple commande "
            "différence utiliser marche signifie activer désactiver"
        ),
    ),
    "es": Cues(
        _beginning("y qué pasa con", "qué pasa con", "y", "o", "pero"),
        _words("él ella ellos ellas lo la los las le les su sus esto eso este esta ese esa estos"),
        _words("la los las este esta ese esa estos su sus lo"),
        _words("entonces"),
        _words("para en con de sin sobre por desde bajo"),
        _NEVER,
        _words(
            "hacer hago cambiar cambio valor defecto opción ejemplo comando diferencia usar uso "
            "funciona significa activar desactivar"
        ),
    ),
    "it": Cues(
        _beginning("e per quanto riguarda", "e", "o", "ma"),
        _words("esso essa essi lo la li le gli suo sua suoi loro questo questa quello quella ciò"),
        _words("la lo le gli li questo questa quello quella suo sua suoi loro"),
        _words("allora"),
        _words("per su in con da senza di sul sulla nel nella"),
        _NEVER,
        _words(
            "fare faccio cambiare cambio valore opzione esempio comando differenza usare uso "
            "funziona significa attivare disattivare"
        ),
    ),
}  # fmt: skip
