"""From the wire to the shapes of the REST API."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal, cast

from google.protobuf.timestamp_pb2 import Timestamp
from raglan.chunking_strategy import STRUCTURE
from raglan.telemetry import context as request_context
from raglan.v1 import common_pb2, generator_pb2, ingester_pb2, retriever_pb2

from raglan_gateway import answer_id, stage_spans
from raglan_gateway.api import (
    cacheable,
    job_schemas,
    schemas,
    searched,
    strategy_schemas,
    understood,
)
from raglan_gateway.api.version_schemas import KeptVersions
from raglan_gateway.expansion.joining import part_at
from raglan_gateway.grounding import Claim, groundedness
from raglan_gateway.injection_signs import injection_signs
from raglan_gateway.query_state import QueryState
from raglan_gateway.strategies.strategy import SecondTry
from raglan_gateway.understanding.reading import read

_FINISH_REASONS: Final[dict[int, Literal["stop", "length", "abstained", "content_filter"]]] = {
    generator_pb2.FINISH_REASON_STOP: "stop",
    generator_pb2.FINISH_REASON_LENGTH: "length",
    generator_pb2.FINISH_REASON_ABSTAINED: "abstained",
    generator_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}


def search(run: QueryState) -> schemas.SearchReply:
    """The reply of `/v1/search`."""
    return schemas.SearchReply(
        passages=[passage(p) for p in run.passages],
        collections=collections(run),
        degraded=degraded(run),
        timings_ms=timings(run),
        trace_id=request_context.trace_id(),
        cached=cached(run),
        strategy=strategy(run),
    )


def again(run: QueryState) -> bytes:
    """Return the reply of `/v1/query` from a cached answer, as JSON that is made once an answer."""
    assert run.entry is not None
    own = cacheable.OF_ONE_REPLY
    if not run.entry.rendered:
        run.entry.rendered = query(run).model_dump_json(exclude=set(own)).encode()
    head = {
        "id": answer_id.current(),
        "timings_ms": timings(run),
        "trace_id": request_context.trace_id(),
        "cached": {layer: shown.model_dump() for layer, shown in cached(run).items()},
        "similar": None,
    }
    return json.dumps(head)[:-1].encode() + b"," + run.entry.rendered[1:]


def cached(run: QueryState) -> cacheable.Cached:
    """Return what came from a cache."""
    return {
        layer.value: cacheable.CachedLayer(
            age_s=round(hit.age_s, 3), saved_ms=round(hit.saved_s * 1e3, 3)
        )
        for layer, hit in run.cached.items()
    }


def query(run: QueryState, passages: Sequence[schemas.Passage] = ()) -> schemas.QueryReply:
    """Build the reply of `/v1/query`, which is also the `final` event of its stream.

    Args:
        run: Query that is over.
        passages: Those of `run`, where its stream has shown them already.
    """
    finished, usage = run.finished, run.usage
    return schemas.QueryReply(
        id=answer_id.current(),
        standalone_question=run.asked.standalone or run.query.text,
        answer=run.answer,
        finish_reason=_FINISH_REASONS.get(finished.reason, "stop"),
        abstained=finished.reason == generator_pb2.FINISH_REASON_ABSTAINED,
        thinking="" if run.query.stream else run.thinking,
        citations=[citation(c, run.passages[c.passage_index]) for c in run.citations],
        passages=list(passages) or [passage(p) for p in run.passages],
        confidence=finished.confidence,
        confidence_parts=dict(finished.parts),
        groundedness=groundedness(run.claims, finished.groundedness),
        claims=[claim(c) for c in run.claims],
        unread_chunk_ids=[run.passages[index].chunk_id for index in finished.dropped],
        collections=collections(run),
        degraded=degraded(run),
        usage=schemas.Usage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
        ),
        timings_ms=timings(run),
        model=finished.model,
        trace_id=request_context.trace_id(),
        cached=cached(run),
        strategy=strategy(run),
        similar=_similar(run),
        understanding=understanding(run),
    )


def strategy(run: QueryState) -> strategy_schemas.StrategyUsed | None:
    """Return what strategies made of the question; None where none took part."""
    outcome = run.strategy
    if not outcome.is_used:
        return None
    again = None
    if outcome.second_try is not SecondTry.NONE:
        again = strategy_schemas.SecondTry(
            strategy=cast(Any, outcome.second_try.value),
            reason=cast(Any, outcome.reason),
            helped=outcome.helped,
        )
    return strategy_schemas.StrategyUsed(
        name=cast(Any, outcome.name.value), texts=list(outcome.texts), second_try=again
    )


def _similar(run: QueryState) -> cacheable.SimilarQuestion | None:
    if run.similar is None:
        return None
    return cacheable.SimilarQuestion(
        question=run.similar.text, similarity=round(run.similar.similarity, 4)
    )


def understanding(run: QueryState) -> understood.Understanding:
    """Return how the question of `run` was understood, and record it in the trace."""
    found = read(run.asked.standalone or run.query.text)
    stage_spans.understood(found, run.synonyms)
    return understood.Understanding(
        intent=found.intent,
        language=found.language or None,
        keywords=list(found.keywords),
        technical_terms=list(found.technical_terms),
        synonyms={each.form: list(each.others) for each in run.synonyms},
    )


def timings(run: QueryState) -> dict[str, float]:
    """Milliseconds by stage, to the microsecond."""
    return {name: round(value, 3) for name, value in run.timings_ms.items()}


def degraded(run: QueryState) -> list[schemas.Degraded]:
    """Convert the degradations of a run."""
    return [
        schemas.Degraded(
            stage=d.stage, reason=d.reason, fallback=d.fallback, collection=d.collection
        )
        for d in run.degraded
    ]


def collections(run: QueryState) -> list[searched.SearchedCollection]:
    """Convert the search of each collection; `passages` counts those that the reply has."""
    shown = Counter(each.collection for each in run.passages)
    return [
        searched.SearchedCollection(
            collection=each.collection,
            took_ms=round(each.timing.compute_ns / 1e6, 3),
            passages=shown[each.collection],
            error=each.error,
        )
        for each in run.collections
    ]


def passage(found: common_pb2.Passage) -> schemas.Passage:
    """One passage."""
    scores = {field.name: value for field, value in found.scores.ListFields()}
    return schemas.Passage(
        chunk_id=found.chunk_id,
        chunk_ids=[part.chunk_id for part in found.parts] or [found.chunk_id],
        document_id=found.document_id,
        collection=found.collection,
        title=found.title,
        heading_path=list(found.heading_path),
        page=found.page or None,
        text=found.text,
        start=found.start,
        end=found.end,
        language=found.language or None,
        rank=found.rank,
        duplicates=found.duplicates,
        injection_signs=injection_signs(found.text),
        scores=schemas.Scores(**scores),
        metadata=_object(found.metadata_json),
        version=found.version or None,
    )


def citation(cited: generator_pb2.Citation, source: common_pb2.Passage) -> schemas.Citation:
    """One citation of `source`."""
    chunk = part_at(source, cited.start)
    return schemas.Citation(
        marker=cited.marker,
        document_id=source.document_id,
        collection=source.collection,
        chunk_id=chunk.chunk_id,
        chunk_start=chunk.start,
        chunk_end=chunk.end,
        title=source.title,
        heading_path=list(cited.heading_path or source.heading_path),
        page=cited.page or source.page or None,
        quote=cited.quote,
        start=cited.start,
        end=cited.end,
    )


def claim(found: Claim) -> schemas.Claim:
    """One sentence of the answer."""
    return schemas.Claim(
        start=found.start,
        end=found.end,
        markers=list(found.markers),
        supported=found.supported,
        support=schemas.ClaimSupport(
            lexical=found.lexical, cosine=found.cosine, conflict=cast(Any, found.conflict or None)
        ),
    )


def collection(found: retriever_pb2.Collection) -> schemas.Collection:
    """One collection."""
    return schemas.Collection(
        name=found.name,
        embedder=schemas.Embedder(
            id=found.embedder.id,
            revision=found.embedder.revision,
            dimension=found.embedder.dimension,
        ),
        chunking={
            "max_chars": found.chunking.max_chars,
            "overlap_chars": found.chunking.overlap_chars,
            "strategy": found.chunking.strategy or STRUCTURE,
            "contextual": found.chunking.contextual,
        },
        vectors={
            "late_interaction": found.further_vectors.token_vectors,
            "token_pooling": found.further_vectors.token_pooling or 1,
            "sparse": found.further_vectors.sparse,
        },
        documents=found.documents,
        chunks=found.chunks,
        unindexed_chunks=found.unindexed_chunks,
        disk_bytes=found.disk_bytes,
        index=_index(found.index) if found.HasField("index") else None,
        error=found.error,
        profile=found.profile or None,
        versions=kept_versions(found),
    )


def kept_versions(found: retriever_pb2.Collection) -> KeptVersions | None:
    """The earlier versions that a collection keeps."""
    if not found.HasField("versions"):
        return None
    held = found.versions
    return KeptVersions(max_versions=held.max_versions, max_age_days=held.max_age_days or None)


def _index(found: retriever_pb2.VectorIndex) -> schemas.VectorIndex:
    return schemas.VectorIndex.model_validate(found, from_attributes=True)


def document_summary(found: ingester_pb2.Document) -> schemas.DocumentSummary:
    """A document without its text."""
    return schemas.DocumentSummary(**_document_fields(found))


def document(found: ingester_pb2.Document, chunks: list[retriever_pb2.Chunk]) -> schemas.Document:
    """A document with its text and the chunks that the index holds of it."""
    return schemas.Document(
        **_document_fields(found),
        language=found.language or None,
        warnings=list(found.warnings),
        text=found.text,
        chunks=[
            schemas.Chunk(
                chunk_id=chunk.chunk_id,
                start=chunk.start,
                end=chunk.end,
                heading_path=list(chunk.heading_path),
                page=chunk.page or None,
                text=chunk.text,
            )
            for chunk in chunks
        ],
    )


def job(found: ingester_pb2.Job) -> job_schemas.Job:
    """One job."""
    return job_schemas.Job(
        id=found.id,
        collection=found.collection,
        kind=cast(Any, found.kind or "ingest"),
        status=_lower(ingester_pb2.JobStatus.Name(found.status), "JOB_STATUS_"),
        stages={
            stage.stage: job_schemas.Progress(done=stage.done, total=stage.total)
            for stage in found.stages
        },
        errors=[
            job_schemas.DocumentProblem(document_id=e.document_id, message=e.message)
            for e in found.errors
        ],
        warnings=[
            job_schemas.DocumentProblem(document_id=w.document_id, message=w.message)
            for w in found.warnings
        ],
        warning_count=found.warning_count,
        replaced=found.replaced,
        documents=found.documents,
        unchanged=found.unchanged,
        context=_context_cost(found),
        created_at=_iso(found.created_at),
        finished_at=_iso(found.finished_at) if found.HasField("finished_at") else None,
    )


def _context_cost(found: ingester_pb2.Job) -> job_schemas.ContextCost | None:
    if not found.HasField("context"):
        return None
    names = job_schemas.ContextCost.model_fields
    return job_schemas.ContextCost(**{name: getattr(found.context, name) for name in names})


def _document_fields(found: ingester_pb2.Document) -> dict[str, Any]:
    return {
        "id": found.id,
        "title": found.title,
        "filename": found.filename,
        "media_type": found.media_type,
        "sha256": found.sha256,
        "size_bytes": found.size_bytes,
        "status": _lower(ingester_pb2.DocumentStatus.Name(found.status), "DOCUMENT_STATUS_"),
        "chunk_count": found.chunks,
        "error": found.error or None,
        "metadata": _object(found.metadata_json),
        "access": list(found.access),
        "created_at": _iso(found.created_at),
        "version": found.version or None,
        "valid_from": _iso(found.valid_from) if found.version else None,
        "valid_to": _iso(found.valid_to) if found.HasField("valid_to") else None,
    }


def _lower(name: str, prefix: str) -> Any:
    return name.removeprefix(prefix).lower()


def _object(text: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(text) if text else {}
    return value


def _iso(moment: Timestamp) -> str:
    return moment.ToJsonString()
