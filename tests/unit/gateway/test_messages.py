"""Mapping of the services' messages in the gateway."""

from __future__ import annotations

from raglan.v1 import common_pb2, reranker_pb2
from raglan_gateway.messages import reordered


def passages(*exact: bool) -> list[common_pb2.Passage]:
    return [common_pb2.Passage(chunk_id=str(n), exact=each) for n, each in enumerate(exact)]


def ranked(*indices: int) -> reranker_pb2.RerankResponse:
    return reranker_pb2.RerankResponse(
        ranked=[
            reranker_pb2.Ranked(index=index, score=-place) for place, index in enumerate(indices)
        ]
    )


def test_reranked_passages_come_first_and_the_others_keep_their_order() -> None:
    found = reordered(passages(False, False, False, False), ranked(2, 0))
    assert [passage.chunk_id for passage in found] == ["2", "0", "1", "3"]


def test_exact_matches_stay_before_what_the_reranker_prefers() -> None:
    found = reordered(passages(True, False, True, False), ranked(3, 2, 1, 0))
    assert [passage.chunk_id for passage in found] == ["0", "2", "3", "1"]


def test_an_exact_match_leads_also_where_the_reranker_did_not_score_it() -> None:
    found = reordered(passages(True, False, False), ranked(2, 1))
    assert [passage.chunk_id for passage in found] == ["0", "2", "1"]
