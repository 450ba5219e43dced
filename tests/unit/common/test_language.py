"""The language of a text, and when it is better not to say."""

from __future__ import annotations

import pytest
from raglan.language import detect, detect_document

SENTENCES = {
    "ar": "كيف يمكنني حذف مستند من المجموعة؟",
    "cs": "Jak smažu dokument ze sbírky souborů?",
    "de": "Wie lösche ich ein Dokument aus der Sammlung?",
    "el": "Πώς διαγράφω ένα έγγραφο από τη συλλογή;",
    "en": "How do I delete a document from the collection?",
    "es": "¿Cómo elimino un documento de la colección?",
    "fi": "Miten poistan asiakirjan kokoelmasta?",
    "fr": "Comment supprimer un document de la collection ?",
    "hi": "मैं संग्रह से कोई दस्तावेज़ कैसे हटाऊँ?",
    "hu": "Hogyan törölhetek egy dokumentumot a gyűjteményből?",
    "it": "Come si elimina un documento dalla raccolta?",
    "ja": "コレクションから文書を削除するにはどうすればよいですか。",
    "ko": "컬렉션에서 문서를 삭제하려면 어떻게 합니까?",
    "nl": "Hoe verwijder ik een document uit de verzameling?",
    "pl": "Jak usunąć dokument z kolekcji?",
    "pt": "Como faço para excluir um documento da coleção?",
    "ru": "Как удалить документ из коллекции?",
    "sv": "Hur tar jag bort ett dokument ur samlingen?",
    "th": "ฉันจะลบเอกสารออกจากคอลเลกชันได้อย่างไร",
    "tr": "Koleksiyondan bir belgeyi nasıl silerim?",  # noqa: RUF001
    "uk": "Як видалити документ із колекції?",
    "vi": "Làm thế nào để xóa một tài liệu khỏi bộ sưu tập?",
    "zh": "如何从集合中删除文档？",  # noqa: RUF001
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_has_its_language(language: str) -> None:
    assert detect(SENTENCES[language]) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "KX-88213",
        "v1.2.3",
        "getUserById",
        "12345",
        "nginx",
        "Docker",
        "--no-cache",
        "схема",
    ],
)
def test_too_few_words_have_no_language(text: str) -> None:
    assert detect(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "What does KX-88213 mean?",
        "How do I set max_batch_tokens in config.yaml?",
        "Which value has RAGLAN_GATEWAY_PORT by default?",
        "## Install\n\nRun `pip install x` and start the server:\n\n```bash\nx up --port 80\n```\n",
    ],
)
def test_identifiers_and_code_do_not_hide_the_language_of_the_words(text: str) -> None:
    assert detect(text) == "en"


def test_lines_and_length_do_not_matter() -> None:
    assert detect("Die Häuser wurden\nim Jahr 1850\naus Ziegeln gebaut. " * 5000) == "de"


def test_a_column_of_units_has_no_language() -> None:
    rows = "".join(f"| P{n:05} | {n}.50 EUR |\n" for n in range(500))
    assert detect(f"# Price list\n\n| Product | Price |\n|---|---|\n{rows}") == ""


@pytest.mark.parametrize(
    "names", [["x", "y", "z"], ["lat", "lon", "alt"], ["Total", "Net", "Brut"]]
)
def test_a_table_of_numbers_has_no_language(names: list[str]) -> None:
    rows = [names, ["---"] * len(names), *([["12", "7.5", "33"]] * 200)]

    assert detect_document("\n".join(f"| {' | '.join(row)} |" for row in rows)) == ""


def test_a_table_of_words_has_the_language_of_its_words() -> None:
    row = "| the station is closed on Sundays | 12 | bring your own lunch and water |\n"

    assert detect_document(row * 20) == "en"
