"""The end of an answer in the REST reply."""

from __future__ import annotations

import pytest
from raglan.deadline import Deadline
from raglan.v1 import generator_pb2, retriever_pb2
from raglan_gateway.api import replies
from raglan_gateway.grounding import claims_of
from raglan_gateway.query import Query
from raglan_gateway.query_state import QueryState


def run_of(finished: generator_pb2.Finished) -> QueryState:
    asked = Query("what?", ("default",), 3, retriever_pb2.SEARCH_MODE_HYBRID, rerank=True)
    run = QueryState(asked, Deadline.after(5), answer="It takes 90 days [1].", finished=finished)
    run.claims = claims_of(finished)
    return run


@pytest.mark.parametrize(
    ("reason", "shown", "abstained"),
    [
        (generator_pb2.FINISH_REASON_UNSPECIFIED, "stop", False),
        (generator_pb2.FINISH_REASON_STOP, "stop", False),
        (generator_pb2.FINISH_REASON_LENGTH, "length", False),
        (generator_pb2.FINISH_REASON_ABSTAINED, "abstained", True),
        (generator_pb2.FINISH_REASON_CONTENT_FILTER, "content_filter", False),
    ],
)
def test_a_reply_says_why_the_answer_ended(
    reason: generator_pb2.FinishReason.ValueType, shown: str, abstained: bool
) -> None:
    reply = replies.query(run_of(generator_pb2.Finished(reason=reason)))
    assert (reply.finish_reason, reply.abstained) == (shown, abstained)


def test_a_claim_that_its_passages_contradict_says_by_what() -> None:
    claim = generator_pb2.Claim(start=0, end=21, markers=[1], support=0.9, conflict="number")
    reply = replies.query(run_of(generator_pb2.Finished(claims=[claim])))
    assert not reply.claims[0].supported
    assert reply.claims[0].support.conflict == "number"
    assert reply.groundedness == 0
