"""Text as the terms that it is found by: what must meet, and what must not."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.characters import fold_accents
from raglan.segmentation import segments
from raglan.terms import identifiers, language_code, query_terms, terms, whole_terms, words


@pytest.mark.parametrize(
    ("query", "text", "language"),
    [
        ("filter", "The e\ufb03cient \ufb01lter \ufb02ows.", "en"),
        ("ABC123", "model \uff21\uff22\uff23\uff11\uff12\uff13 is discontinued", "en"),
        ("computer", "The compu\u00adter room", "en"),
        ("computer", "The comp\u200bu\u200dter room", "en"),
        (unicodedata.normalize("NFD", "Büro"), "Das Büro in Köln", "de"),
        ("cafe", "Le café est fermé", "fr"),
        ("cafe", "Meet me at the café", "en"),
        ("resume", "Send your résumé", "en"),
        ("Strasse", "Die Straße ist gesperrt", "de"),
        ("Muenchen", "Der Zug nach München", "de"),
        ("isparta", "ISPARTA'da gül bahçeleri", "tr"),
        ("istanbul", "İSTANBUL'UN nüfusu", "tr"),
        ("ILIK", "ılık su", "tr"),  # noqa: RUF001
        ("елка", "Ёлка стоит в углу", "ru"),
        ("الكتاب", "هٰذَا الْكِتَابُ", "ar"),
        ("σπίτι", "Το ΣΠΊΤΙ είναι μεγάλο", "el"),  # noqa: RUF001
        ("homme", "L\u2019homme et la mer", "fr"),
        ("Rollo", "Rollo\u2019s oath", "en"),
        ("1000", "The limit is 1,000 requests.", "en"),
        ("12", "الطابق ١٢", "ar"),
        ("running", "She runs every day", "en"),
        ("Häusern", "Die Häuser sind alt", "de"),
    ],
)
def test_a_query_meets_the_text(query: str, text: str, language: str) -> None:
    wanted = set(terms(query, language))
    assert wanted
    assert wanted <= set(terms(text, language))


@pytest.mark.parametrize("acronym", ["IT", "WHO", "US", "U.S."])
def test_an_acronym_that_looks_like_a_stop_word_is_a_word(acronym: str) -> None:
    assert set(terms(acronym, "en")) <= set(terms("The US guideline of the WHO and IT.", "en"))
    assert terms(acronym.lower().replace(".", ""), "en") == []


def test_words_in_a_text_all_in_capitals_are_no_acronyms() -> None:
    assert terms("WHAT IS IT AND WHO ARE WE", "en") == []


def test_stop_words_are_those_of_the_language() -> None:
    assert terms("the house of the king", "en") == ["hous", "king"]
    assert "the" in terms("the house", "de")
    assert "die" not in terms("die Straße", "de")
    assert terms("vitamin D", "en") == ["vitamin", "d"]


@pytest.mark.parametrize(
    ("identifier", "found_by"),
    [
        ("getUserById", ["getUserById", "getuserbyid", "user", "get"]),
        ("HTTPServerError", ["HTTPServerError", "server", "HTTP"]),
        ("max_batch_tokens", ["max_batch_tokens", "maxBatchTokens", "batch", "token"]),
        ("RAGLAN_GATEWAY_PORT", ["RAGLAN_GATEWAY_PORT", "raglan_gateway_port", "gateway", "port"]),
        ("KX-88213", ["KX-88213", "kx88213", "88213", "KX"]),
        ("v1.2.3", ["v1.2.3", "1.2.3"]),
        ("--no-cache", ["--no-cache", "no-cache", "cache"]),
        ("/etc/nginx/nginx.conf", ["/etc/nginx/nginx.conf", "nginx.conf", "nginx", "conf"]),
        ("docs.example.com/guide", ["docs.example.com", "example"]),
        ("std::vector", ["std::vector", "vector"]),
        ("sha256", ["sha256", "sha"]),
        ("C++", ["C++"]),
        ("e-mail", ["e-mail", "email", "mail"]),
        ("GitHub", ["GitHub", "github"]),
        ("PDFs", ["PDF"]),
        ("2024-05-01", ["2024-05-01", "2024"]),
    ],
)
def test_an_identifier_is_found_whole_and_by_its_parts(
    identifier: str, found_by: list[str]
) -> None:
    held = set(terms(f"Set {identifier}, then go on.", "en"))
    for query in found_by:
        wanted = terms(query, "en")
        assert wanted, query
        assert set(wanted) <= held, query


@pytest.mark.parametrize(
    ("one", "other"),
    [("1.2.3", "1.2.4"), ("3.5", "35"), ("10-20", "1020"), ("KX-88213", "KX-88214"), ("C++", "C#")],
)
def test_names_that_differ_do_not_meet_as_wholes(one: str, other: str) -> None:
    assert terms(one, "en")[0] not in terms(other, "en")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("직원의 출장 숙박비는 하루 십만 원까지 지급한다.", "숙박비"),
        ("물은 100도에서 끓는다", "물"),
        ("社員の出張時の宿泊費は一泊一万円までとする。", "出張"),
        ("社員の出張時の宿泊費は一泊一万円までとする。", "宿泊費"),
        ("データベースを再起動してください", "データベース"),
        ("差旅住宿费每晚不超过五百元。", "住宿费"),
        ("增值税按月申报", "税"),
        ("ห้องประชุมอยู่ชั้นสาม", "ประชุม"),
        ("เด็กดื่มน้ำทุกวัน", "น้ำ"),
        ("ຂ້ອຍຢູ່ນະຄອນຫຼວງວຽງຈັນ", "ວຽງຈັນ"),
        ("ខ្ញុំចូលចិត្តភាសាខ្មែរ", "ខ្មែរ"),
        ("ကျွန်တော်မြန်မာစာသင်တယ်", "မြန်မာ"),
        ("Windows用のインストーラ", "インストーラ"),
    ],
)
def test_a_word_is_found_inside_running_text(text: str, word: str) -> None:
    wanted = terms(word)
    assert wanted
    assert set(wanted) <= set(terms(text))


def test_thai_signs_stay_with_their_consonant() -> None:
    assert segments("ภาษาไทย")[:3] == ["ภาษา", "ษาไท", "ไทย"]


def test_a_query_has_terms_of_each_language() -> None:
    """A query has the terms of each language and the stop words of its own."""
    assert set(terms("Häusern", "de")) | set(terms("Häusern", "en")) == set(
        query_terms("Häusern", ["en", "de"])
    )
    assert "die" in query_terms("Why do stars die", ["en", "de"])
    assert "die" not in query_terms("die Häuser", ["de", "en"])


def test_words_keep_stop_words_and_lose_case_and_accents() -> None:
    assert words("Who saw the Café of getUserById?") == (
        ["who", "saw", "the", "cafe", "of", "get", "user", "by", "id"]
    )


def test_accents_of_other_scripts_are_letters() -> None:
    assert fold_accents("ørsted ñandú ελλάδα й कि") == "orsted nandu ελλαδα й कि"


def test_vietnamese_is_found_with_and_without_its_tones() -> None:
    held = terms("Chính phủ", "vi")
    assert set(terms("chinh phu", "vi")) < set(held)
    assert "chính" in held


def test_a_word_of_a_megabyte_costs_little() -> None:
    begun = time.process_time()
    for text in ("a" * 2**20, "a-" * 2**19, "aB" * 2**19, "'" * 2**20, "字" * 2**20, "1," * 2**19):
        assert max(map(len, terms(text, "en")), default=0) <= 128
    assert time.process_time() - begun < 20


@given(st.text(max_size=200), st.sampled_from(["", "en", "de", "tr", "fr", "ar", "uk", "vi"]))
def test_any_text_has_terms_and_they_are_stable(text: str, language: str) -> None:
    found = terms(text, language)
    assert found == terms(text, language)
    assert all(found)
    assert not any(term.isspace() for term in found)


@given(st.text(max_size=100))
def test_composed_and_decomposed_text_have_the_same_terms(text: str) -> None:
    forms = (unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD"))
    assert len({tuple(terms(form, "en")) for form in forms}) == 1


def test_identifiers_are_names_that_are_no_words() -> None:
    text = "Set max_batch_tokens for P04321 and KX-88213, std::vector or getUserById in JSON."
    assert identifiers(text) == [
        "max_batch_tokens",
        "P04321",
        "KX-88213",
        "std::vector",
        "getUserById",
    ]


def test_words_numbers_versions_and_short_names_are_no_identifiers() -> None:
    text = "The real-time API's 2024 APIs since v1.2.3, 1,000 A4 pages, U.S.A. O'Brien2"
    assert identifiers(text) == []
    assert identifiers("a1" * 2000) == []


def test_an_undivided_identifier_has_no_parts_but_its_whole_term() -> None:
    query = "value of value_15555 and max_tokens"
    assert whole_terms("value_15555", ["en", "de"]) == ["value15555"]
    assert set(query_terms(query, ["en"], {"value_15555"})) == {
        "value15555", "valu", "maxtoken", "max", "token",
    }  # fmt: skip
    assert "15555" in query_terms(query, ["en"])


@pytest.mark.parametrize(("name", "code"), [("en", "en"), ("German", "de"), ("th", "th")])
def test_a_language_has_a_code_or_a_name(name: str, code: str) -> None:
    assert language_code(name) == code


def test_an_unknown_language_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="klingon"):
        language_code("klingon")
