"""Relevance of passages to a question, by words and meaning together.

Words alone miss a paraphrase, another language and a typo; meaning alone misses a rare name. Words,
the cosine of the vectors and the reranker each give a probability, and one of them is enough.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from raglan.deadline import Deadline

from raglan_generator.extraction import extract
from raglan_generator.generation import Request, Support

_COSINE_HALF: Final = 0.45
_COSINE_SLOPE: Final = 14.0
"""A logistic of the cosine of question and passage. With all-MiniLM-L6-v2, 1,000 questions of SQuAD
and the paragraphs that answer them have a median of .58 (quartiles .48 and .66), the nearest of
5,000 abstracts on another subject .26 (.22 and .30)."""


async def judge(request: Request, deadline: Deadline) -> Support:
    """The relevance of the request's passages, as the confidence of a support without claims.

    Raises:
        DeadlineExceeded: the time ran out.
    """
    return await asyncio.to_thread(judge_here, request, deadline)


def judge_here(request: Request, deadline: Deadline) -> Support:
    """Do what `judge` does on this thread, for a caller that has left the loop already."""
    found = extract(
        request.standalone,
        request.passages,
        max_sentences=1,
        checkpoint=lambda: deadline.check("the passages were judged"),
    )
    chances = {
        "words": found.answerable,
        "meaning": _meaning(request),
        "rerank": _reranked(request),
    }
    known = {name: chance for name, chance in chances.items() if chance is not None}
    doubt = math.prod(1 - chance for chance in known.values())
    confidence = min(1.0, max(0.0, 1 - doubt))
    return Support(confidence=confidence, groundedness=0.0, parts=dict(found.parts) | known)


def _meaning(request: Request) -> float | None:
    """The probability by meaning; None where no embedder has compared."""
    cosines = [each.similarity for each in request.passages if each.similarity is not None]
    if not cosines:
        return None
    return 1 / (1 + math.exp(-_COSINE_SLOPE * (max(cosines) - _COSINE_HALF)))


def _reranked(request: Request) -> float | None:
    """The best probability by the reranker; None where it gave none, or scores of another scale."""
    scores = [each.reranked for each in request.passages if each.reranked is not None]
    if not scores or not all(0 <= score <= 1 for score in scores):
        return None
    return max(scores)
