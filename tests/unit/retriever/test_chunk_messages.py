"""Chunks as they come over the wire."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from raglan.errors import InvalidInput
from raglan.v1 import retriever_pb2
from raglan_retriever import wire


@pytest.mark.parametrize("at", [Timestamp(nanos=-1), Timestamp(seconds=2**62)])
def test_a_time_outside_of_the_calendar_is_refused_by_its_chunk(at: Timestamp) -> None:
    chunk = retriever_pb2.Chunk(chunk_id="c1", created_at=at)
    with pytest.raises(InvalidInput, match="created_at of chunk 'c1'"):
        wire.chunk_from_proto(chunk)


def test_a_chunk_of_a_release_without_times_has_none() -> None:
    assert wire.chunk_from_proto(retriever_pb2.Chunk(chunk_id="c1")).created_ms == 0
