"""Small talk: a message that greets, thanks or asks about the assistant, and nothing else.

Such a message is answered without a search, in its language. It is recognised only if phrases of
this module make up all of it, so that a greeting before a question is none.
"""

# ruff: noqa: RUF001 - letters of many alphabets look alike
from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final, Literal

Kind = Literal["greeting", "thanks", "farewell", "wellbeing", "identity"]

_LONGEST: Final = 120
"""Characters; whoever writes more asks something."""

_PHRASES: Final[Mapping[str, Mapping[Kind, str]]] = {
    "en": {
        "greeting": r"hi|hello|hey|hiya|howdy|greetings|good (?:morning|afternoon|evening|day)"
        r"|nice to meet you|hello again",
        "thanks": r"(?:many |ok |okay |great )?(?:thanks|thank you|thx|cheers)"
        r"(?: (?:a lot|so much|very much|again|a bunch|a million))?"
        r"(?: for (?:the|your) (?:help|answer|info|information|explanation))?"
        r"|much appreciated|i appreciate it|that (?:helped|helps)(?: a lot)?"
        r"|(?:that(?:'s| is|s)? )?(?:great|perfect|awesome|very helpful|wonderful)"
        r" (?:thanks|thank you)",
        "farewell": r"bye|bye bye|goodbye|good bye|good night|see you(?: (?:later|soon|tomorrow))?"
        r"|take care|have a (?:nice|good|great) (?:day|evening|weekend|one)|until next time",
        "wellbeing": r"how are you(?: (?:doing|today|doing today))?|how(?:'s| is) it going"
        r"|how do you do|what'?s up|are you ok(?:ay)?",
        "identity": r"who are you|what are you|what(?:'s| is) your name|are you (?:a |an )?"
        r"(?:bot|robot|human|ai|chatbot|real|real person|machine)|what can you do"
        r"|what can you do for me|introduce yourself|tell me about yourself|who made you"
        r"|can you help me|i need (?:some )?help|can i ask you (?:something|a question)",
    },
    "de": {
        "greeting": r"hallo|moin|servus|grüß (?:gott|dich|euch)|guten (?:morgen|tag|abend)|hi"
        r"|hallo zusammen",
        "thanks": r"(?:danke|(?:vielen|besten|herzlichen|tausend) dank)(?: dir| ihnen| euch)?"
        r"(?: (?:schön|sehr|vielmals))?(?: für (?:die|deine|ihre) hilfe)?|dankeschön",
        "farewell": r"tschüss?|tschau|auf wiedersehen|bis (?:bald|später|morgen|dann)|gute nacht"
        r"|schönen (?:tag|abend)(?: noch)?|schönes wochenende",
        "wellbeing": r"wie geht(?:'s| es)?(?: dir| ihnen)?(?: heute)?|wie gehts(?: dir)?"
        r"|alles klar",
        "identity": r"wer bist du|was bist du|wie heißt du|was kannst du(?: tun| für mich tun)?"
        r"|bist du ein (?:bot|roboter|mensch)|wer sind sie|kannst du mir helfen",
    },
    "fr": {
        "greeting": r"bonjour|salut|bonsoir|coucou|bonjour à tous",
        "thanks": r"merci(?: (?:beaucoup|bien|à toi|à vous|infiniment))?"
        r"(?: pour (?:ton|votre) aide)?",
        "farewell": r"au revoir|à bientôt|à demain|à plus(?: tard)?|bonne (?:nuit|journée|soirée)"
        r"|adieu",
        "wellbeing": r"(?:comment )?(?:ça|ca) va|comment vas[ -]tu|comment allez[ -]vous",
        "identity": r"qui es[ -]tu|qui êtes[ -]vous|que sais[ -]tu faire|que peux[ -]tu faire"
        r"|comment t'appelles[ -]tu|peux[ -]tu m'aider|pouvez[ -]vous m'aider",
    },
    "es": {
        "greeting": r"hola|buenos días|buenas(?: tardes| noches)?|qué tal",
        "thanks": r"(?:muchas |mil )?gracias(?: por (?:tu|su|la) ayuda)?",
        "farewell": r"adiós|adios|hasta (?:luego|pronto|mañana)|chao",
        "wellbeing": r"cómo (?:estás|está|te va)|como estas",
        "identity": r"quién eres|qué eres|qué puedes hacer|cómo te llamas|puedes ayudarme"
        r"|me puedes ayudar",
    },
    "it": {
        "greeting": r"ciao|salve|buongiorno|buonasera|buon giorno|buon pomeriggio",
        "thanks": r"grazie(?: (?:mille|tante|molte))?(?: per (?:l'aiuto|il tuo aiuto))?"
        r"|ti ringrazio",
        "farewell": r"arrivederci|a presto|a domani|buonanotte|buona (?:giornata|serata|notte)",
        "wellbeing": r"come (?:stai|sta|va)",
        "identity": r"chi sei|cosa sei|cosa (?:puoi|sai) fare|come ti chiami|puoi aiutarmi",
    },
    "pt": {
        "greeting": r"olá|bom dia|boa tarde|boa noite",
        "thanks": r"(?:muito )?obrigad[oa]|valeu",
        "farewell": r"tchau|até (?:logo|mais|amanhã|breve)",
        "wellbeing": r"como (?:vai|está|você está)|tudo bem",
        "identity": r"quem é você|quem és tu|o que você (?:pode|sabe) fazer",
    },
    "nl": {
        "greeting": r"hoi|goede(?:morgen|middag|navond)|goedendag",
        "thanks": r"(?:heel erg |hartelijk )?(?:bedankt|dank je|dank u|dankjewel)(?: wel)?",
        "farewell": r"tot ziens|doei|tot (?:later|morgen|straks)",
        "wellbeing": r"hoe gaat het(?: met (?:je|jou|u))?",
        "identity": r"wie ben (?:je|jij)|wat kun (?:je|jij)(?: doen)?",
    },
    "pl": {
        "greeting": r"cześć|dzień dobry|witaj|hej|dobry wieczór",
        "thanks": r"dzięki|dziękuję(?: bardzo)?",
        "farewell": r"do widzenia|na razie|dobranoc",
        "wellbeing": r"jak się masz|co słychać",
        "identity": r"kim jesteś|co potrafisz",
    },
    "tr": {
        "greeting": r"merhaba|selam|günaydın|iyi (?:günler|akşamlar)",
        "thanks": r"teşekkür(?:ler| ederim)|çok teşekkürler|sağ ol",
        "farewell": r"hoşça kal|görüşürüz|güle güle|iyi geceler",
        "wellbeing": r"nasılsın|nasılsınız",
        "identity": r"sen kimsin|kimsin|ne yapabilirsin",
    },
    "ru": {
        "greeting": r"привет|здравствуй(?:те)?|добрый (?:день|вечер)|доброе утро",
        "thanks": r"(?:большое )?спасибо(?: (?:большое|за помощь))?|благодарю",
        "farewell": r"пока|до свидания|до встречи|спокойной ночи",
        "wellbeing": r"как (?:у (?:тебя|вас) )?дела|как (?:ты|вы) (?:поживаешь|поживаете)",
        "identity": r"кто ты|кто вы|что ты (?:умеешь|можешь)",
    },
    "ar": {
        "greeting": r"مرحبا|السلام عليكم|أهلا|صباح الخير|مساء الخير",
        "thanks": r"شكرا(?: جزيلا)?",
        "farewell": r"مع السلامة|إلى اللقاء|وداعا",
        "wellbeing": r"كيف حالك",
        "identity": r"من أنت|ماذا يمكنك أن تفعل",
    },
    "th": {
        "greeting": r"สวัสดี(?:ครับ|ค่ะ)?|หวัดดี",
        "thanks": r"ขอบคุณ(?:มาก)?(?:ครับ|ค่ะ)?",
        "farewell": r"ลาก่อน",
        "wellbeing": r"สบายดีไหม",
        "identity": r"คุณเป็นใคร|คุณคือใคร",
    },
    "zh": {
        "greeting": r"你好|您好|嗨|早上好|下午好|晚上好|哈喽",
        "thanks": r"(?:非常)?(?:谢谢|多谢|感谢)(?:你|您)?",
        "farewell": r"再见|拜拜|晚安",
        "wellbeing": r"你好吗|最近怎么样",
        "identity": r"你是谁|你能做什么|你会什么",
    },
    "ja": {
        "greeting": r"こんにちは|こんばんは|おはよう(?:ございます)?|はじめまして",
        "thanks": r"ありがとう(?:ございます|ございました)?|どうも",
        "farewell": r"さようなら|さよなら|またね|おやすみ(?:なさい)?",
        "wellbeing": r"お?元気ですか",
        "identity": r"あなたは誰(?:ですか)?|何ができますか",
    },
    "ko": {
        "greeting": r"안녕(?:하세요|하십니까)?|반가워요|반갑습니다",
        "thanks": r"고마워(?:요)?|고맙습니다|감사합니다",
        "farewell": r"안녕히 (?:계세요|가세요)|잘 가|다음에 봐요",
        "wellbeing": r"잘 지내(?:요|세요|니)?",
        "identity": r"(?:너는 |당신은 )?누구(?:야|세요|니|예요)",
    },
}  # fmt: skip

_ADDRESSEES: Final = {
    "en": "there|everyone|everybody|all|team|friend|assistant|bot|raglan|again|you too|dear|folks",
    "de": "zusammen|alle|leute|assistent|raglan|dir auch",
    "fr": "à tous|tout le monde|raglan",
    "es": "a todos|raglan",
    "it": "a tutti|raglan",
}
_APOSTROPHES: Final = str.maketrans("\u2019\u02bc\u00b4", "'''")


def _all_of_it(language: str, kind: Kind | None = None) -> re.Pattern[str]:
    """Pattern of texts that are nothing but phrases of a language, or of one kind of them."""
    kinds = _PHRASES[language]
    phrases = "|".join(kinds.values() if kind is None else [kinds[kind]]).casefold()
    address = _ADDRESSEES.get(language, "raglan")
    one = rf"(?:{phrases})(?: (?:{address}))?"
    if kind is not None:
        return re.compile(rf"(?:.* )?{one}")
    return re.compile(rf"{one}(?: (?:and )?{one}){{0,3}}")


_TALK: Final = {language: _all_of_it(language) for language in _PHRASES}
_LAST: Final = {
    language: {kind: _all_of_it(language, kind) for kind in kinds}
    for language, kinds in _PHRASES.items()
}

_REPLIES: Final[Mapping[str, Mapping[Kind, str]]] = {
    "en": {
        "greeting": "Hello! Ask me a question about the documents.",
        "thanks": "You're welcome! Ask me anything else about the documents.",
        "farewell": "Goodbye!",
        "wellbeing": "I'm fine, thank you. Ask me a question about the documents.",
        "identity": "I answer questions from the documents and cite the passages that I rely on. "
        "Ask me a question about them.",
    },
    "de": {
        "greeting": "Hallo! Stellen Sie mir eine Frage zu den Dokumenten.",
        "thanks": "Gern geschehen! Fragen Sie mich gern mehr zu den Dokumenten.",
        "farewell": "Auf Wiedersehen!",
        "wellbeing": "Danke, gut. Stellen Sie mir eine Frage zu den Dokumenten.",
        "identity": "Ich beantworte Fragen aus den Dokumenten und nenne die Stellen, auf denen die "
        "Antwort beruht. Stellen Sie mir eine Frage dazu.",
    },
    "fr": {
        "greeting": "Bonjour ! Posez-moi une question sur les documents.",
        "thanks": "Je vous en prie ! Posez-moi d'autres questions sur les documents.",
        "farewell": "Au revoir !",
        "wellbeing": "Bien, merci. Posez-moi une question sur les documents.",
        "identity": "Je réponds aux questions à partir des documents et je cite les passages sur "
        "lesquels je m'appuie. Posez-moi une question.",
    },
    "es": {
        "greeting": "¡Hola! Hágame una pregunta sobre los documentos.",
        "thanks": "¡De nada! Pregúnteme lo que quiera sobre los documentos.",
        "farewell": "¡Hasta luego!",
        "wellbeing": "Bien, gracias. Hágame una pregunta sobre los documentos.",
        "identity": "Respondo preguntas a partir de los documentos y cito los pasajes en que me "
        "baso. Hágame una pregunta.",
    },
    "it": {
        "greeting": "Ciao! Fammi una domanda sui documenti.",
        "thanks": "Prego! Chiedimi altro sui documenti.",
        "farewell": "Arrivederci!",
        "wellbeing": "Bene, grazie. Fammi una domanda sui documenti.",
        "identity": "Rispondo alle domande a partire dai documenti e cito i passaggi su cui mi "
        "baso. Fammi una domanda.",
    },
}
"""Replies; languages without their own have the English ones."""


def reply_to(text: str) -> str:
    """Return the reply to small talk; empty where `text` is a question.

    Args:
        text: a message, cleaned.
    """
    if len(text) > _LONGEST:
        return ""
    said = _spoken(text)
    if not said:
        return ""
    for language, pattern in _TALK.items():
        if pattern.fullmatch(said):
            replies = _REPLIES.get(language, _REPLIES["en"])
            # Of "Hi, who are you?" the last phrase wants the reply.
            return next(
                replies[kind] for kind, last in _LAST[language].items() if last.fullmatch(said)
            )
    return ""


def _spoken(text: str) -> str:
    """The words of `text`, casefolded, without punctuation and emoji."""
    folded = unicodedata.normalize("NFC", text).casefold().translate(_APOSTROPHES)
    return " ".join("".join(each if _is_spoken(each) else " " for each in folded).split())


def _is_spoken(character: str) -> bool:
    if character in "'-":
        return True
    # Emoji may have a variation selector, which is a mark.
    is_selector = "\ufe00" <= character <= "\ufe0f"
    return unicodedata.category(character)[0] in "LMN" and not is_selector
