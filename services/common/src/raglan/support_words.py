"""Words that decide whether a text supports a sentence: negations, numbers, yes and no.

By ISO 639-1 code. Languages that write without spaces have parts of words, which are looked for
inside the text.
"""

# ruff: noqa: RUF001 - letters of many alphabets look alike
from __future__ import annotations

from typing import Final

NEGATIONS: Final = {
    language: frozenset(words.split())
    for language, words in {
        "bg": "не няма никога нито никой нищо",
        "ca": "no mai cap res ningú ni tampoc",
        "cs": "ne není nejsou nelze nemá nemají nesmí nemusí nikdy nic nikdo žádný žádná žádné",
        "da": "ikke aldrig ingen intet ej",
        "de": "nicht kein keine keinen keinem keiner keines nie niemals weder nichts niemand",
        "el": "δεν δε μη μην ποτέ κανένας καμία κανένα ούτε όχι",
        "en": "not no never none neither nor cannot nobody nothing",
        "es": "no nunca jamás ningún ninguno ninguna nada nadie tampoco ni",
        "et": "ei mitte ära pole",
        "fi": "ei en et emme ette eivät eikä älä",
        "fr": "ne n pas jamais aucun aucune rien ni personne",
        "hi": "नहीं न मत",
        "hu": "nem ne soha sem nincs nincsenek",
        "id": "tidak bukan belum jangan tak",
        "it": "non mai nessun nessuno nessuna niente nulla né neppure",
        "lt": "ne nėra niekada niekas",
        "nl": "niet geen nooit niets niemand noch",
        "no": "ikke aldri ingen intet ingenting ei",
        "pl": "nie nigdy żaden żadna żadne nic nikt ani brak",
        "pt": "não nunca jamais nenhum nenhuma nada ninguém nem",
        "ro": "nu niciodată niciun nicio nimic nimeni nici",
        "ru": "не нет ни никогда никто ничего нельзя",
        "sv": "inte ej aldrig ingen inget inga icke",
        "tr": "değil yok hiç hayır değildir yoktur",
        "uk": "не немає ні ніколи ніхто нічого",
        "vi": "không chẳng chưa đừng",
        "ar": "لا لم لن ليس ليست غير",
        "fa": "نیست نه نمی هیچ نیستند",
        "he": "לא אין אינו אינה אינם",
    }.items()
}
"""Words that turn a statement into its opposite."""

NEGATING_PARTS: Final = {
    "ja": ("ない", "ません", "なかった", "ずに"),
    "ko": ("않", "못", "없", "아니"),
    "th": ("ไม่",),
    "zh": ("不", "没", "沒", "無法", "无法", "无需", "無需", "未", "勿"),
}
"""The same, inside of words; n't of English and enclitics are read by their form."""

EXCEPTIONS: Final = {
    language: frozenset(words.split())
    for language, words in {
        "de": "außer ausgenommen ohne nur erst bis",
        "en": "except excluding excludes unless without only until other than",
        "es": "excepto salvo sin solo sólo hasta",
        "fr": "sauf excepté sans seulement jusqu que",
        "it": "tranne salvo eccetto senza solo fino",
        "nl": "behalve tenzij zonder alleen pas tot",
        "pt": "exceto salvo sem só somente até",
        "ru": "кроме без только если пока",
        "sv": "utom utan bara endast förrän",
    }.items()
}
"""Words that say as much with a negation as without."""

NUMBERS: Final = {
    language: {word: str(value) for value, word in enumerate(words.split(), start=2)}
    for language, words in {
        "da": "to tre fire fem seks syv otte ni ti elleve tolv",
        "de": "zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
        "en": "two three four five six seven eight nine ten eleven twelve",
        "es": "dos tres cuatro cinco seis siete ocho nueve diez once doce",
        "fr": "deux trois quatre cinq six sept huit neuf dix onze douze",
        "it": "due tre quattro cinque sei sette otto nove dieci undici dodici",
        "nl": "twee drie vier vijf zes zeven acht negen tien elf twaalf",
        "no": "to tre fire fem seks sju åtte ni ti elleve tolv",
        "pl": "dwa trzy cztery pięć sześć siedem osiem dziewięć dziesięć jedenaście dwanaście",
        "pt": "dois três quatro cinco seis sete oito nove dez onze doze",
        "ru": "два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать",
        "sv": "två tre fyra fem sex sju åtta nio tio elva tolv",
        "tr": "iki üç dört beş altı yedi sekiz dokuz on onbir oniki",
    }.items()
}
"""Two to twelve as words. One is an article in most languages."""

TENS: Final = {
    "de": {"zwanzig": "20", "dreißig": "30", "vierzig": "40", "fünfzig": "50", "sechzig": "60",
           "siebzig": "70", "achtzig": "80", "neunzig": "90", "hundert": "100"},
    "en": {"fifteen": "15", "twenty": "20", "thirty": "30", "forty": "40", "fifty": "50",
           "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90", "hundred": "100"},
    "es": {"veinte": "20", "treinta": "30", "cuarenta": "40", "cincuenta": "50", "sesenta": "60",
           "setenta": "70", "ochenta": "80", "noventa": "90", "cien": "100"},
    "fr": {"quinze": "15", "vingt": "20", "trente": "30", "quarante": "40", "cinquante": "50",
           "soixante": "60", "cent": "100"},
    "it": {"venti": "20", "trenta": "30", "quaranta": "40", "cinquanta": "50", "sessanta": "60",
           "settanta": "70", "ottanta": "80", "novanta": "90", "cento": "100"},
}  # fmt: skip

ORDINALS: Final = {
    language: {word: str(value) for value, word in enumerate(words.split(), start=2)}
    for language, words in {
        "de": "zweite dritte vierte fünfte sechste siebte achte neunte zehnte",
        "en": "second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth",
        "es": "segundo tercero cuarto quinto sexto séptimo octavo noveno décimo",
        "fr": "deuxième troisième quatrième cinquième sixième septième huitième neuvième dixième",
        "it": "secondo terzo quarto quinto sesto settimo ottavo nono decimo",
    }.items()
}
"""Words that support a number but are none by themselves: a second may be one of time."""

INTERJECTIONS: Final = frozenset(
    str.split(
        """yes no yeah yep nope sure certainly absolutely correct indeed exactly right true ok okay
        ja nein doch genau richtig natürlich oui non si bien exactement sí claro correcto sì certo
        sim não certamente nee jawel zeker да нет конечно tak nie oczywiście ano áno igen nem evet
        hayır nu nei jo visst kyllä ei はい いいえ ええ 是 是的 不是 对 不 否 예 네 아니요 نعم لا כן
        ναι όχι हाँ नहीं ใช่ ไม่ có không ya tidak"""
    )
)
"""Words that answer without stating anything, in any language."""

CONJUNCTIONS: Final = {
    language: tuple(words.split())
    for language, words in {
        "da": "og men eller",
        "de": "und aber oder sondern",
        "en": "and but or",
        "es": "y e pero o u sino",
        "fr": "et mais ou",
        "it": "e ed ma o",
        "nl": "en maar of",
        "no": "og men eller",
        "pl": "i ale lub oraz",
        "pt": "e mas ou",
        "ru": "и но или",
        "sv": "och men eller",
        "tr": "ve ama veya",
    }.items()
}
"""Words between two clauses."""

CASED_NOUNS: Final = frozenset({"de", "lb"})
"""Languages that write every noun with a capital, not only names."""
