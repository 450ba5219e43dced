"""Grounding: sentences of an answer that their citations support, by words or by meaning.

The generator compares words; a sentence that says the same in other words is found by its vector.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from raglan import tensors
from raglan.grounding import is_supported
from raglan.v1 import embedder_pb2, generator_pb2

_MARKER: Final = re.compile(r" ?\[\d+\]")
_MOST_TEXTS: Final = 64
"""Sentences and quotes compared by meaning; of more than that, words alone decide."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the answer, `answer[start:end]`, and what supports it."""

    start: int
    end: int
    markers: tuple[int, ...]
    lexical: float
    """Share of its terms in the passages it cites."""
    cosine: float | None = None
    """Of its vector and the nearest quote's; None where it was not compared."""
    conflict: str = ""
    """The part of it that the passages contradict, as the generator found; empty for none."""

    @property
    def supported(self) -> bool:
        """By its words or by its meaning, and without a conflict."""
        return is_supported(self.lexical, self.cosine, self.conflict)


def claims_of(finished: generator_pb2.Finished) -> list[Claim]:
    """Return the claims as the generator reported them."""
    return [
        Claim(claim.start, claim.end, tuple(claim.markers), claim.support, conflict=claim.conflict)
        for claim in finished.claims
    ]


def groundedness(claims: Sequence[Claim], stated: float) -> float:
    """The share of `claims` that are supported; without claims, what the generator `stated`."""
    return sum(claim.supported for claim in claims) / len(claims) if claims else stated


@dataclass(frozen=True, slots=True)
class Comparison:
    """Texts to embed, so that claims which words do not support can be compared by meaning."""

    texts: list[str]
    claims: dict[int, int]
    """Row of a claim's vector, by position of the claim."""
    quotes: dict[int, int]
    """Row of a quote's vector, by marker."""

    @classmethod
    def of(
        cls, answer: str, claims: Sequence[Claim], citations: Sequence[generator_pb2.Citation]
    ) -> Comparison:
        """Select the claims to compare: they cite a passage and share too few words with it.

        Where passages contradict a claim, meaning cannot support it.
        """
        quoted = {citation.marker: citation.quote for citation in citations}
        rows: dict[str, int] = {}
        compared = cls([], {}, {})
        for position, claim in enumerate(claims):
            markers = [marker for marker in claim.markers if marker in quoted]
            text = _MARKER.sub("", answer[claim.start : claim.end]).strip()
            wanted = {text, *(quoted[marker] for marker in markers)}
            settled = claim.supported or claim.conflict or not markers
            if settled or len(rows.keys() | wanted) > _MOST_TEXTS:
                continue
            compared.claims[position] = rows.setdefault(text, len(rows))
            for marker in markers:
                compared.quotes[marker] = rows.setdefault(quoted[marker], len(rows))
        compared.texts.extend(rows)
        return compared

    def applied(self, claims: Sequence[Claim], embedded: embedder_pb2.EmbedResponse) -> list[Claim]:
        """`claims` with the cosines that the vectors of `texts` give."""
        vectors = tensors.unpack(embedded.vectors)
        found = list(claims)
        for position, row in self.claims.items():
            rows = [self.quotes[m] for m in found[position].markers if m in self.quotes]
            cosine = float(np.clip((vectors[rows] @ vectors[row]).max(), 0.0, 1.0))
            found[position] = replace(found[position], cosine=cosine)
        return found
