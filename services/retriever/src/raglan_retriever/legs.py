"""The searches of one collection: by vector, by words, by identifiers, by abbreviations.

All that the query and the collection's description tell is searched in one call of the store. The
other form of an abbreviation is known only by what that call finds, so it is a second one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final, Literal

from raglan.telemetry import semconv

from raglan_retriever import abbreviations, lexical, model_legs
from raglan_retriever.abbreviations import OtherForm
from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Collection
from raglan_retriever.described import read_described
from raglan_retriever.lexical import Sparse
from raglan_retriever.merging import FEW, Holders
from raglan_retriever.query import Query
from raglan_retriever.stores.spans import engine_span
from raglan_retriever.stores.store import Hit, Search, Store
from raglan_retriever.validity import valid

Synonyms = dict[str, list[str]]
"""Words of a query, and the other forms of them that were searched for as well."""

_NOTABLE: Final = 0.25
"""Least share of a query's terms that its identifiers are if they alone decide what it means: a
claim of a dozen words that names a gene is about more than the gene."""

_MOST_MIXED: Final = 2
"""Identifiers of a query of which any may be held and any not, without a further call."""

_Undivided = frozenset[str]
"""Identifiers of the query whose parts are left out of its words."""

_Purpose = Literal["definitions"] | tuple[Literal["model", "identifier"], str] | _Undivided
"""Stands for a search; a set of identifiers stands for that by the words without their parts."""


@dataclass(frozen=True, slots=True)
class Part:
    """Hits of the legs in one collection."""

    collection: Collection
    revision: int
    by_model: dict[str, list[Hit]]
    """By leg of `model_legs`."""
    lexical: list[Hit]
    holders: Holders
    other: OtherForm | None = None
    """The query in another form, which `Legs.expand` searches for."""
    synonyms: Synonyms | None = None


def joined(several: Iterable[Synonyms | None]) -> Synonyms:
    """Return the synonyms of several collections as one."""
    found: Synonyms = {}
    for synonyms in several:
        for form, others in (synonyms or {}).items():
            found[form] = list(dict.fromkeys([*found.get(form, ()), *others]))
    return found


class Legs:
    """Searches the collections of a store, one at a time.

    Args:
        store: holds the chunks.
        expands: search also by the other form of abbreviations that a collection defines.
    """

    def __init__(self, store: Store, *, expands: bool) -> None:
        self._store = store
        self._expands = expands

    async def search(self, query: Query, depth: int, name: str) -> Part:
        """Return the best `depth` hits of each leg of `query`."""
        now, part = await read_described(
            self._store, name, lambda held: self._search(query, depth, held)
        )
        return replace(part, collection=now.collection, revision=now.revision)

    async def expand(
        self, query: Query, depth: int, part: Part, ahead: Sequence[str]
    ) -> tuple[Part, dict[str, Chunk]]:
        """Search by words in their other form too.

        Args:
            query: the query.
            depth: most hits.
            part: what `search` has found, with an `other` form.
            ahead: ids of points that the result is likely to have.

        Returns:
            The hits by both forms. From a remote store also the chunks `ahead` and of the best
            hits by the other form: what the result shows is then mostly read already.
        """
        assert part.other is not None
        name, vector = part.collection.name, part.other.vector
        query = replace(query, where=valid(part.collection, query.as_of_ms, query.where))
        searches = [Search(vector, depth)]
        chunks: dict[str, Chunk] = {}
        if self._store.is_remote:
            searches.append(Search(vector, query.limit, with_chunks=True))
            (more, first), chunks = await asyncio.gather(
                self._hits(name, query, depth, searches), self._store.fetch(name, ahead)
            )
            chunks |= {hit.id: hit.chunk for hit in first if hit.chunk is not None}
        else:
            (more,) = await self._hits(name, query, depth, searches)
        both = abbreviations.best(part.lexical, more, depth)
        return replace(part, lexical=both, synonyms=dict(part.other.synonyms)), chunks

    async def _search(self, query: Query, depth: int, held: Collection) -> Part:
        query.check_collection(held)
        query = replace(query, where=valid(held, query.as_of_ms, query.where))
        by_words = query.mode != "dense"
        forms = self._forms(query, held) if by_words else None
        searches = _planned(query, depth, held, forms, is_remote=self._store.is_remote)
        hits = await self._hits(held.name, query, depth, list(searches.values()))
        found = dict(zip(searches, hits, strict=True))
        part = Part(held, 0, _of_kind("model", found), [], {})
        if not by_words:
            return part
        holders = {
            identifier: [(held.name, hit.id) for hit in some]
            for identifier, some in _of_kind("identifier", found).items()
            if some
        }
        # Where a name is known as a whole, its parts would only find other names.
        undivided = _Undivided(holders)
        words = _words(query, held, undivided)
        if not words.indices:
            return part
        if undivided not in found:
            (found[undivided],) = await self._hits(held.name, query, depth, [Search(words, depth)])
        return replace(
            part,
            lexical=found[undivided],
            holders=holders if len(holders) >= _NOTABLE * len(words.indices) else {},
            other=await _other_form(forms, words, found.get("definitions", [])),
        )

    def _forms(self, query: Query, held: Collection) -> abbreviations.Forms | None:
        if not self._expands:
            return None
        return abbreviations.Forms(query.text, held.languages or (held.language,))

    async def _hits(
        self, name: str, query: Query, depth: int, searches: Sequence[Search]
    ) -> list[list[Hit]]:
        if not searches:
            return []
        asked = {
            semconv.MODE: query.mode,
            semconv.LIMIT: depth,
            semconv.FILTERED: query.where is not None,
            semconv.BATCH_SIZE: len(searches),
        }
        with engine_span(self._store.name, semconv.INDEX_SEARCH, name, asked) as span:
            found = await self._store.search(name, searches, query.where)
            span.set_attribute(semconv.DB_ROWS, sum(map(len, found)))
        return found


def _planned(
    query: Query,
    depth: int,
    held: Collection,
    forms: abbreviations.Forms | None,
    *,
    is_remote: bool,
) -> Mapping[_Purpose, Search]:
    """Return the searches to make at once.

    A remote store is searched by words with and without the parts of identifiers; another one
    when it is known which of them are held.
    """
    searches: dict[_Purpose, Search] = {}
    if query.mode != "lexical" and query.vector is not None:
        for leg, vector in model_legs.vectors_for(held, query.vector, query.further).items():
            searches["model", leg] = Search(vector, depth)
    if query.mode == "dense":
        return searches
    identified = lexical.identified(query.text, held.languages, held.language)
    for identifier, whole in identified.items():
        searches["identifier", identifier] = Search(whole, FEW + 1)
    for undivided in _undivided(list(identified)) if is_remote or not identified else ():
        words = _words(query, held, undivided)
        if words.indices:
            searches[undivided] = Search(words, depth)
    if forms is not None and (marks := forms.marks).indices:
        searches["definitions"] = Search(marks, abbreviations.LOOKED_AT, with_chunks=True)
    return searches


def _of_kind(kind: str, found: Mapping[_Purpose, list[Hit]]) -> dict[str, list[Hit]]:
    """Return the hits of the searches of a kind, by the name of each."""
    return {
        purpose[1]: hits
        for purpose, hits in found.items()
        if isinstance(purpose, tuple) and purpose[0] == kind
    }


def _undivided(identifiers: Sequence[str]) -> list[_Undivided]:
    """Return sets of identifiers that may be held: every one if they are few, else all or none."""
    count = len(identifiers)
    sizes = range(count + 1) if count <= _MOST_MIXED else (0, count)
    return [_Undivided(some) for size in sizes for some in combinations(identifiers, size)]


def _words(query: Query, held: Collection, undivided: _Undivided) -> Sparse:
    return lexical.query(query.text, held.languages, held.language, undivided)


async def _other_form(
    forms: abbreviations.Forms | None, words: Sparse, defining: Sequence[Hit]
) -> OtherForm | None:
    texts = [(hit.chunk.document_id, hit.chunk.text) for hit in defining if hit.chunk is not None]
    if forms is None or not texts:
        return None
    # Chunks full of definitions take tens of milliseconds.
    return await asyncio.to_thread(forms.other, words, texts)
