"""The answer to small talk, as events of the pipeline: no search, no model, no citation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from raglan.deadline import Deadline
from raglan.v1 import generator_pb2

from raglan_gateway.pipeline import Answered, Event, Sources, Started, absorb
from raglan_gateway.query import Query
from raglan_gateway.query_state import QueryState

MODEL: Final = "small-talk"


def small_talk_events(query: Query, deadline: Deadline) -> Iterator[Event]:
    """Yield the events of `query.small_talk`, in the order of `Pipeline.answer`."""
    # Nothing that is missing would have changed it.
    run = QueryState(replace(query, missing=()), deadline)
    yield Started(query.text)
    yield Sources(run)
    # It states nothing that could be wrong, so nobody needs to try again.
    finished = generator_pb2.Finished(
        reason=generator_pb2.FINISH_REASON_STOP, model=MODEL, confidence=1, groundedness=1
    )
    delta = generator_pb2.Delta(text=query.small_talk)
    yield from absorb(run, generator_pb2.GenerateEvent(delta=delta))
    yield from absorb(run, generator_pb2.GenerateEvent(finished=finished))
    run.close()
    yield Answered(run)
