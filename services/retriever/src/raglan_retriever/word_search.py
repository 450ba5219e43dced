"""The lexical search of one collection: by the words of a query, and by their other forms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from raglan.filtering.clauses import Clause

from raglan_retriever import abbreviations
from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Collection
from raglan_retriever.lexical import Sparse
from raglan_retriever.stores.store import Hit

Synonyms = dict[str, list[str]]
"""Words of a query, and the other forms of them that were searched for as well."""

_LEG: Final = "lexical"
_Search = Callable[[str, str, Sparse, int, Clause | None], Awaitable[list[Hit]]]
_Fetch = Callable[[str, Sequence[str]], Awaitable[dict[str, Chunk]]]


def joined(several: Iterable[Synonyms]) -> Synonyms:
    """Return the synonyms of several collections as one."""
    found: Synonyms = {}
    for synonyms in several:
        for form, others in synonyms.items():
            found[form] = list(dict.fromkeys([*found.get(form, ()), *others]))
    return found


class WordSearch:
    """Finds chunks by words, and by the other form of abbreviations that the collection defines.

    Args:
        search: returns the hits of a leg in a collection.
        fetch: returns chunks of a collection by their ids.
        expands: False searches for the words alone.
    """

    def __init__(self, search: _Search, fetch: _Fetch, *, expands: bool) -> None:
        self._search = search
        self._fetch = fetch
        self._expands = expands

    async def hits(
        self, text: str, held: Collection, words: Sparse, depth: int, where: Clause | None
    ) -> tuple[list[Hit], Synonyms]:
        """Return the best hits, and the other forms that took part in finding them.

        Args:
            text: the query.
            held: the collection.
            words: vector of the query.
            depth: most hits.
            where: filter, which the definitions have to pass as well.
        """
        asked, other = await asyncio.gather(
            self._search(_LEG, held.name, words, depth, where),
            self._other_form(text, held, words, where),
        )
        if other is None:
            return asked, {}
        more = await self._search(_LEG, held.name, other.vector, depth, where)
        return abbreviations.best(asked, more, depth), dict(other.synonyms)

    async def _other_form(
        self, text: str, held: Collection, words: Sparse, where: Clause | None
    ) -> abbreviations.OtherForm | None:
        if not self._expands:
            return None
        forms = abbreviations.Forms(text, held.languages or (held.language,))
        marks = forms.marks
        if not marks.indices:
            return None
        found = await self._search(_LEG, held.name, marks, abbreviations.LOOKED_AT, where)
        if not found:
            return None
        chunks = await self._fetch(held.name, [hit.id for hit in found])
        texts = [(each.document_id, each.text) for each in chunks.values()]
        # Chunks full of definitions take tens of milliseconds.
        return await asyncio.to_thread(forms.other, words, texts)
