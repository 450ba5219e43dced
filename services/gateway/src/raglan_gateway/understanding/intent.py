"""Intent of a question, by the words that open it and by signs of an error."""

from __future__ import annotations

import re
from typing import Final, Literal

from raglan_gateway.understanding.small_talk import reply_to

Intent = Literal["lookup", "how-to", "comparison", "summary", "troubleshooting", "chit-chat"]

_READ_CHARS: Final = 1_000
"""Beginning of a question that is read; what follows is mostly pasted."""


def _any_of(*phrases: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(phrases)})(?!\w)", re.IGNORECASE)


_SUMMARY: Final = _any_of(
    # English
    r"summari[sz]e",
    r"summary of",
    r"sum up",
    r"overview",
    r"tl;?dr",
    r"outline",
    r"(?:main|key) (?:points?|ideas?|takeaways?|findings)",
    r"takeaways",
    r"in (?:a few|short) "
    r"(?:sentences|words)",
    r"in a nutshell",
    r"briefly (?:describe|explain)",
    r"gist of",
    r"what (?:is|are|do|does) (?:this|these|the|it|they) ?(?:document|page|paper|file|text|"
    r"article|doc|collection)?s? (?:all )?(?:about|cover|contain)",
    r"what topics",
    r"give me (?:a|the) (?:short |brief )?summary",
    # German, French, Spanish, Italian
    r"fasse?\b.{0,80}\bzusammen",
    r"zusammenfassung",
    r"überblick",
    r"worum geht",
    r"résumer?",
    r"résume[rz]?",
    r"aperçu",
    r"de quoi (?:parle|s'agit)",
    r"resumen",
    r"resume",
    r"de qué (?:trata|va)",
    r"riassum\w+",
    r"riassunto",
    r"panoramica",
    r"di cosa (?:parla|tratta)",
)
_COMPARISON: Final = _any_of(
    r"compar(?:e|es|ed|ing|ison)",
    r"differ(?:s|ence|ences)?",
    r"vs\.?",
    r"versus",
    r"pros and cons",
    r"trade-?offs?",
    r"(?:dis)?advantages? of",
    r"better than",
    r"(?:faster|slower|cheaper|safer|larger|smaller) "
    r"than",
    r"(?:which|what)(?: (?:one|of them))? is (?:the )?(?:better|faster|slower|cheaper|"
    r"safer|larger|smaller|easier|simpler)",
    r"(?:should|shall) (?:i|we) (?:use|choose|take|pick|"
    r"prefer)\b.{1,60}\bor",
    r"prefer\b.{1,60}\b(?:to|over)",
    r"unterschiede?",
    r"vergleich\w*",
    r"besser als",
    r"vor- und nachteile",
    r"différences?",
    r"compare[rz]?",
    r"comparaison",
    r"mieux que",
    r"avantages et inconvénients",
    r"diferencias?",
    r"comparar?",
    r"comparación",
    r"mejor que",
    r"ventajas y desventajas",
    r"differenz[ae]",
    r"confront\w+",
    r"meglio di",
)
_TROUBLE: Final = _any_of(
    r"errors?",
    r"exception",
    r"traceback",
    r"stack ?trace",
    r"fail(?:s|ed|ing|ure|ures)?",
    r"crash(?:es|ed|ing)?",
    r"broken",
    r"bug",
    r"hangs?",
    r"hanging",
    r"stuck",
    r"freez(?:es|ing)",
    r"times? out",
    r"timed out",
    r"timeout error",
    r"refused",
    r"denied",
    r"(?:does|do|did|is|are|was|has|have|can|could|will|wo)(?: not|n't)(?= )(?! (?:need|have to))"
    r"(?: \w+)? (?:work|start|run|find|load|build|install|connect|show|appear|open|stop|created|"
    r"found|working|running|loading)\w*",
    r"can(?:not|'t) (?:find|connect|start|open|load|install|see|run|import|resolve|log ?in)",
    r"stop(?:s|ped)? working",
    r"not working",
    r"doesn't work",
    r"went wrong",
    r"what'?s wrong",
    r"what is wrong",
    r"keeps? (?:\w+ing)",
    r"fix(?:es|ed|ing)?",
    r"troubleshoot\w*",
    r"debug\w*",
    r"(?:returns?|get|gets|got|gives?|shows?|throws?|raises?)(?: an?| me)? (?:error|[45]\d\d)",
    r"why (?:is|are|was|were)\b.{0,60}\b(?:empty|missing|slow|wrong|blank)",
    r"unable to",
    r"no module named",
    r"oom\w*",
    r"out of memory",
    r"segfault",
    r"panic(?:s|ked)?",
    r"fehler\w*",
    r"funktioniert nicht",
    r"geht nicht",
    r"startet\b.{0,40}\bnicht",
    r"abgestürzt",
    r"schlägt fehl",
    r"erreurs?",
    r"ne (?:fonctionne|marche|démarre) pas",
    r"échoue",
    r"en panne",
    r"no (?:funciona|arranca|puedo|encuentra)",
    r"falla",
    r"errore",
    r"non (?:funziona|parte|trova)",
)
_NAMED_ERROR: Final = re.compile(r"\b[A-Z]\w*(?:Error|Exception|Warning|Killed|BackOff)\b")
_ASKS_OF_ERRORS: Final = _any_of(
    r"what (?:does|is|are|do)\b.{0,60}\b(?:codes?|mean|messages?|errors?|exceptions?)",
    r"(?:which|what) (?:error|exception|exit|status)\b.{0,40}",
    r"(?:does|is|are|can|will) (?:the|an?|it)\b.{0,60}\b(?:errors?|fail\w*)",
)
_HOW_TO: Final = _any_of(
    r"how (?:do|can|could|should|would|must|shall|might) (?:i|we|you|one|someone|people)",
    r"how to",
    r"how'?d (?:i|you)",
    r"steps? (?:to|for)",
    r"step[ -]by[ -]step",
    r"(?:best|right|correct|"
    r"proper|recommended|easiest|simplest) way to",
    r"(?:is there )?an?y? way (?:to|of)",
    r"what (?:do|should|must|would) (?:i|we) (?:have to |need to )?(?:do|run|type|write|configure|"
    r"set|change|install|put)",
    r"(?:show|tell|teach) me how",
    r"explain how to",
    r"guide (?:to|for)",
    r"tutorial",
    r"instructions? (?:for|to)",
    r"walk me through",
    r"wie (?:kann|muss|soll|könnte|sollte) (?:ich|man|wir)",
    r"wie \w+ (?:ich|man|wir)",
    r"anleitung",
    r"schritte",
    r"comment (?:\w+er|\w+ir|\w+re|puis-je|peut-on|dois-je|faire|fait-on|je|on)",
    r"étapes",
    r"cómo (?:puedo|se|hago|debo|podemos|\w+[aei]r)",
    r"pasos para",
    r"come (?:posso|si|faccio|devo|possiamo|\w+[aei]re)",
    r"passaggi per",
)
_IMPERATIVE: Final = re.compile(
    r"(?:please )?(?:install|configure|set up|setup|enable|disable|create|add|remove|delete|change|"
    r"upgrade|update|migrate|deploy|run|build|publish|connect|use|rotate|restart|rename|import|"
    r"export|upload)(?:ing)? (?!of\b)\S+",
    re.IGNORECASE,
)


def intent_of(text: str) -> Intent:
    """Return what `text` asks for; "lookup" where nothing says otherwise.

    Args:
        text: the question, cleaned.
    """
    if reply_to(text):
        return "chit-chat"
    text = text[:_READ_CHARS].replace("\u2019", "'")
    if _SUMMARY.search(text):
        return "summary"
    if _COMPARISON.search(text):
        return "comparison"
    if _NAMED_ERROR.search(text) or (_TROUBLE.search(text) and not _ASKS_OF_ERRORS.search(text)):
        return "troubleshooting"
    if _HOW_TO.search(text) or _IMPERATIVE.match(text):
        return "how-to"
    return "lookup"
