"""A JSON upload is read document by document, and refused as soon as a limit is passed."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from raglan.errors import InvalidInput, PayloadTooLarge
from raglan_gateway.api.document_stream import documents_of


class Body:
    """A body in pieces that counts what was taken of it."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.taken += len(piece)
            yield piece


async def _read(body: Body, max_documents: int = 100) -> list[dict[str, Any]]:
    found = documents_of(aiter(body), max_documents=max_documents)
    return [document.model_dump(exclude_unset=True) async for document in found]


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_documents_are_the_same_however_the_body_is_cut(size: int) -> None:
    sent = [
        {"id": f"d{n}", "title": "", "text": "Grüße 😀 " * n, "metadata": {"n": [n, 1.5, None]}}
        for n in range(5)
    ]
    body = json.dumps({"documents": sent}).encode()

    pieces = (body[at : at + size] for at in range(0, len(body), size))

    assert await _read(Body(pieces)) == sent


async def test_the_limit_of_documents_ends_the_reading() -> None:
    body = Body(itertools.chain([b'{"documents":['], itertools.repeat(b'{"id":"a","text":"b"},')))

    with pytest.raises(PayloadTooLarge, match="more than 100 documents"):
        await _read(body)

    assert body.taken < 5_000


@pytest.mark.parametrize("filler", [b"[],", b"{},", b"1,", b"["])
async def test_a_document_of_countless_values_is_refused_early(filler: bytes) -> None:
    begin = b'{"documents":[{"id":"a","text":"b","metadata":{"x":['
    body = Body(itertools.chain([begin], itertools.repeat(filler * 1000)))

    with pytest.raises(InvalidInput, match=r"documents\.0"):
        await _read(body)

    assert body.taken < 100_000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"null", "object"),
        (b"[]", "object"),
        (b"{}", "documents: Field required"),
        (b'{"documents":[]}', "at least one"),
        (b'{"documents":{}}', "list"),
        (b'{"docs":[]}', "'docs'"),
        (b'{"documents":[{"id":"a"}]}', r"documents\.0\.text: Field required"),
        (b'{"documents":[{"id":"a","text":"b"},7]}', r"documents\.1: .*"),
        (b'{"documents":[{"id":"a","text":"b"}]} x', "not valid JSON"),
        (b'{"documents":[{"id":"a","text":"b"}]', "not valid JSON"),
        (b'{"documents":[{"id":"a","text":"\xff"}]}', "not valid JSON"),
        (b'{"documents":[{"id":"a","text":"b","metadata":{"n":1' + b"0" * 5000, "not valid JSON"),
        (b'{"documents":[{"id":"a","text":"b"}],"documents":[]}', "one field"),
        (rb'{"documents":[{"id":"a","text":"x\ud800y"}]}', r"documents\.0\.text: .*surrogate"),
        (rb'{"documents":[{"id":"a","text":"x\ud800\ud800"}]}', r"documents\.0\.text: .*surr"),
        (rb'{"documents":[{"id":"a","text":"b"},{"id":"\\\uDBFF","text":"b"}]}', r"ts\.1\.id: "),
        (rb'{"documents":[{"id":"a","text":"b","title":"\ud83d\ud83d\ude00"}]}', r"0\.title: "),
        (rb'{"documents":[{"id":"a","text":"b","metadata":{"k":["\ud800"]}}]}', r"0\.metadata: "),
        (rb'{"documents":[{"id":"a","text":"b","metadata":{"\ud800":1}}]}', r"0\.metadata: "),
        (rb'{"documents":[{"id":"a","text":"\udc00"}]}', "not valid JSON"),
        (rb'{"documents":[{"id":"a","text":"\ud800', "not valid JSON"),
    ],
)
async def test_other_bodies_are_refused_with_the_place(body: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        await _read(Body([body]))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
async def test_escapes_that_are_text_stay_as_they_are_however_the_body_is_cut(size: int) -> None:
    text = r"pair \ud83d\ude00, no escape \\ud800, noncharacter \ufdd0, line\n\\\ud83d\ude00"
    body = b'{"documents":[{"id":"a","text":"' + text.encode() + b'"}]}'

    (document,) = await _read(Body([body[at : at + size] for at in range(0, len(body), size)]))

    assert document["text"] == json.loads(f'"{text}"')


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
async def test_half_a_surrogate_pair_is_refused_however_the_body_is_cut(size: int) -> None:
    body = rb'{"documents":[{"id":"a","text":"x\ud83dy"}]}'

    with pytest.raises(InvalidInput, match="surrogate"):
        await _read(Body([body[at : at + size] for at in range(0, len(body), size)]))
