"""The client: a method for each thing that the gateway does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

from raglan.client import errors, models, transport
from raglan.client._sync.conversations import Conversations
from raglan.client._sync.documents import Documents
from raglan.client.source_models import Source, Sources
from raglan.client.trace_models import Trace, TraceList
from raglan.client.transport import Deadline, given, read_as, segment

Mode = Literal["hybrid", "dense", "lexical"]


class Client(Documents, Conversations):
    """A client of one Raglan gateway. Close it, or use it in a `with` block.

    Every method can raise a `raglan.client.RaglanError`.
    """

    def query(
        self,
        query: str,
        *,
        collections: Sequence[str] | None = None,
        top_k: int | None = None,
        mode: Mode | None = None,
        rerank: bool | None = None,
        min_score: float | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        boosts: Sequence[Mapping[str, Any]] | None = None,
        diversity: float | None = None,
        expand_tokens: int | None = None,
        as_of: str | None = None,
        history: Sequence[Mapping[str, str]] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] | None = None,
        json_schema: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        profile: str | None = None,
        strategy: models.StrategyName | None = None,
        query_count: int | None = None,
        second_try: models.SecondTryName | None = None,
        second_try_below: float | None = None,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> models.QueryReply:
        """Answer a question with citations.

        Args:
            query: the question.
            collections: names of the collections to search; the gateway's default one otherwise.
            top_k: passages to search for.
            mode: by vectors (dense), by words (lexical), or by both.
            rerank: whether the reranker orders the passages.
            min_score: least `scores.rerank` of a passage.
            filter: on metadata, such as `{"eq": {"field": "team", "value": "search"}}`.
            boosts: preferences, such as `{"field": "date", "half_life_days": 30}`.
            diversity: share by which likeness to better passages counts against one.
            expand_tokens: of text around the passages that they are joined with; 0 for none.
            as_of: date or time (RFC 3339) whose versions of the documents are searched.
            history: turns before the question, `{"role": "user" or "assistant", "text": ...}`.
            temperature: of the model's sampling.
            top_p: of the model's sampling.
            seed: of the model's sampling.
            stop: texts before which the answer ends.
            json_schema: schema of the answer, which is JSON without citations then.
            session_id: the conversation that the question continues.
            profile: name of the settings to answer with.
            strategy: search texts that the language model writes, searched beside the question.
            query_count: most questions of the strategy `multi_query`.
            second_try: another search for an answer that abstains.
            second_try_below: confidence below which an answer also gets it.
            max_tokens: of the answer.
            timeout_s: time of the answer, also told to the gateway.
            extra_body: further fields of the request, which this client does not know.
        """
        body = transport.query_body(
            query, timeout_s, extra_body,
            collections=collections, top_k=top_k, mode=mode, rerank=rerank, min_score=min_score,
            filter=filter, boosts=boosts, diversity=diversity, expand_tokens=expand_tokens,
            as_of=as_of,
            history=history, temperature=temperature, top_p=top_p, seed=seed, stop=stop,
            json_schema=json_schema, session_id=session_id, profile=profile,
            strategy=strategy, query_count=query_count, second_try=second_try,
            second_try_below=second_try_below, max_tokens=max_tokens,
        )  # fmt: skip
        deadline = transport.query_deadline(timeout_s, self.timeout_s)
        found = self.request("POST", "/v1/query", json=body, idempotent=True, deadline=deadline)
        return read_as(models.QueryReply, found)

    @contextmanager
    def stream(
        self,
        query: str,
        *,
        collections: Sequence[str] | None = None,
        top_k: int | None = None,
        mode: Mode | None = None,
        rerank: bool | None = None,
        min_score: float | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        boosts: Sequence[Mapping[str, Any]] | None = None,
        diversity: float | None = None,
        expand_tokens: int | None = None,
        as_of: str | None = None,
        history: Sequence[Mapping[str, str]] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] | None = None,
        json_schema: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        profile: str | None = None,
        strategy: models.StrategyName | None = None,
        query_count: int | None = None,
        second_try: models.SecondTryName | None = None,
        second_try_below: float | None = None,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> Iterator[Iterator[models.StreamEvent]]:
        """Answer a question while the answer is made; yields an iterator of events.

        The last event is the whole reply, a `QueryReply`. Leaving the block before it cancels the
        answer. The arguments are those of `query`.
        """
        body = transport.query_body(
            query, timeout_s, extra_body,
            collections=collections, top_k=top_k, mode=mode, rerank=rerank, min_score=min_score,
            filter=filter, boosts=boosts, diversity=diversity, expand_tokens=expand_tokens,
            as_of=as_of,
            history=history, temperature=temperature, top_p=top_p, seed=seed, stop=stop,
            json_schema=json_schema, session_id=session_id, profile=profile,
            strategy=strategy, query_count=query_count, second_try=second_try,
            second_try_below=second_try_below, max_tokens=max_tokens, stream=True,
        )  # fmt: skip
        deadline = transport.query_deadline(timeout_s, self.timeout_s)
        with self.events("POST", "/v1/query", json=body, deadline=deadline) as pairs:
            yield self._stream_events(pairs)

    def search(
        self,
        query: str,
        *,
        collections: Sequence[str] | None = None,
        top_k: int | None = None,
        mode: Mode | None = None,
        rerank: bool | None = None,
        min_score: float | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        boosts: Sequence[Mapping[str, Any]] | None = None,
        diversity: float | None = None,
        expand_tokens: int | None = None,
        as_of: str | None = None,
        profile: str | None = None,
        strategy: models.StrategyName | None = None,
        query_count: int | None = None,
        timeout_s: float | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> models.SearchReply:
        """Find passages without writing an answer. The arguments are those of `query`."""
        body = transport.query_body(
            query, timeout_s, extra_body,
            collections=collections, top_k=top_k, mode=mode, rerank=rerank, min_score=min_score,
            filter=filter, boosts=boosts, diversity=diversity, expand_tokens=expand_tokens,
            as_of=as_of,
            profile=profile, strategy=strategy, query_count=query_count,
        )  # fmt: skip
        deadline = transport.query_deadline(timeout_s, self.timeout_s)
        found = self.request("POST", "/v1/search", json=body, idempotent=True, deadline=deadline)
        return read_as(models.SearchReply, found)

    def create_collection(
        self,
        name: str,
        *,
        embedder: str | None = None,
        chunking: Mapping[str, int | str] | None = None,
        versions: Mapping[str, int] | None = None,
        vectors: Mapping[str, int | bool] | None = None,
    ) -> models.Collection:
        """Make a collection; one that exists with the same settings is returned.

        Args:
            name: letters, digits, `-`, `_` and `.`.
            embedder: refuse if the mesh serves another model than this one.
            chunking: `{"strategy": ..., "max_chars": ..., "overlap_chars": ...}`.
            versions: `{"max_versions": ..., "max_age_days": ...}` of documents that are kept.
            vectors: `{"late_interaction": ..., "token_pooling": ..., "sparse": ...}`.
        """
        settings = given(embedder=embedder, chunking=chunking, versions=versions, vectors=vectors)
        body = {"name": name, **settings}
        made = self.request("POST", "/v1/collections", json=body, idempotent=True)
        return read_as(models.Collection, made)

    def list_collections(self) -> list[models.Collection]:
        """List every collection with its statistics."""
        found = self.request("GET", "/v1/collections")
        return read_as(models.Collections, found).collections

    def get_collection(self, name: str) -> models.Collection:
        """Return one collection with its statistics."""
        found = self.request("GET", f"/v1/collections/{segment(name)}")
        return read_as(models.Collection, found)

    def update_collection(self, name: str, *, profile: str | None) -> models.Collection:
        """Choose the profile of the questions to a collection that name none; None for no own."""
        path = f"/v1/collections/{segment(name)}"
        found = self.request("PATCH", path, json={"profile": profile}, idempotent=True)
        return read_as(models.Collection, found)

    def set_recall_target(self, name: str, recall_target: float | None) -> models.Collection:
        """Choose the recall@10 that a collection's vector index is built and searched for.

        Args:
            name: of the collection.
            recall_target: 0.8 to 0.999; None for the retriever's own. Where it takes another index,
                that is built in the background, from what is stored.
        """
        path = f"/v1/collections/{segment(name)}"
        body = {"recall_target": recall_target}
        found = self.request("PATCH", path, json=body, idempotent=True)
        return read_as(models.Collection, found)

    def delete_collection(self, name: str) -> models.Deleted:
        """Delete a collection with its documents."""
        gone = self.request("DELETE", f"/v1/collections/{segment(name)}")
        return read_as(models.Deleted, gone)

    def list_jobs(self, *, collection: str | None = None, limit: int = 100) -> list[models.Job]:
        """List jobs, newest first."""
        found = self.request("GET", "/v1/jobs", params=given(collection=collection, limit=limit))
        return read_as(models.Jobs, found).jobs

    def get_job(self, job_id: str) -> models.Job:
        """Return a job as it stands."""
        return read_as(models.Job, self.request("GET", f"/v1/jobs/{segment(job_id)}"))

    def cancel_job(self, job_id: str) -> models.Job:
        """Stop a job; what it indexed so far stays."""
        job = self.request("POST", f"/v1/jobs/{segment(job_id)}/cancel")
        return read_as(models.Job, job)

    def retry_job(self, job_id: str) -> models.Job:
        """Run the failed documents of a job again."""
        job = self.request("POST", f"/v1/jobs/{segment(job_id)}/retry")
        return read_as(models.Job, job)

    def wait_for_job(
        self,
        job_id: str,
        *,
        timeout_s: float = 3600.0,
        on_change: Callable[[models.Job], object] | None = None,
    ) -> models.Job:
        """Follow a job until it ends, over restarts of the gateway too.

        Args:
            job_id: as `add_documents` and `upload_files` return it.
            timeout_s: longest wait; the job goes on after it.
            on_change: called with the job at each change.

        Returns:
            The job, which succeeded or is `partial`: `errors` names documents that failed.

        Raises:
            JobFailed: it failed as a whole, or was cancelled.
        """
        deadline = Deadline(timeout_s)
        path = f"/v1/jobs/{segment(job_id)}/events"
        while True:
            try:
                with self.events("GET", path, deadline=deadline) as pairs:
                    for name, data in pairs:
                        if name == "error":
                            raise errors.from_event(data)
                        if name != "job":
                            continue
                        job = read_as(models.Job, data)
                        if on_change is not None:
                            on_change(job)
                        if job.status in transport.ENDED:
                            return transport.succeeded(job)
            except (errors.ConnectionFailed, errors.Unavailable, errors.RateLimited):
                deadline.check()
            time.sleep(min(transport.FOLLOW_S, deadline.check()))

    def list_sources(self) -> Sources:
        """List the configured sources with the state of each, and the error of their file."""
        return read_as(Sources, self.request("GET", "/v1/sources"))

    def get_source(self, name: str) -> Source:
        """Return one source with its last sync."""
        found = self.request("GET", f"/v1/sources/{segment(name)}")
        return read_as(Source, found)

    def sync_source(self, name: str, *, accept_deletions: bool = False) -> Source:
        """Sync a source now, or once more after the sync that is under way.

        Args:
            name: of the source.
            accept_deletions: delete every document that is missing, however many there are.
        """
        path, params = f"/v1/sources/{segment(name)}/sync", {"accept_deletions": accept_deletions}
        return read_as(Source, self.request("POST", path, params=params))

    def wait_for_source(self, name: str, *, timeout_s: float = 3600.0) -> Source:
        """Wait until a source is neither due nor synced just now, and return it as it is then.

        Args:
            name: of the source.
            timeout_s: longest wait; the sync goes on after it.
        """
        deadline = Deadline(timeout_s)
        while True:
            try:
                source = self.get_source(name)
                if source.status not in transport.UNSYNCED:
                    return source
            except (errors.ConnectionFailed, errors.Unavailable, errors.RateLimited):
                deadline.check()
            time.sleep(min(transport.FOLLOW_S, deadline.check()))

    def list_traces(
        self,
        *,
        limit: int = 50,
        route: str | None = None,
        status: int | None = None,
        error: bool | None = None,
        degraded: bool | None = None,
        hedged: bool | None = None,
        retried: bool | None = None,
        min_duration_ms: float | None = None,
        before: int | None = None,
    ) -> TraceList:
        """List the traces that are kept, newest first; pass `next_before` for older ones."""
        params = given(
            limit=limit, route=route, status=status, error=error, degraded=degraded,
            hedged=hedged, retried=retried, min_duration_ms=min_duration_ms, before=before,
        )  # fmt: skip
        return read_as(TraceList, self.request("GET", "/v1/traces", params=params))

    def get_trace(self, trace_id: str) -> Trace:
        """Return a trace that is kept, or any of the last two minutes."""
        found = self.request("GET", f"/v1/traces/{segment(trace_id)}")
        return read_as(Trace, found)

    def _stream_events(
        self, pairs: Iterator[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[models.StreamEvent]:
        for name, data in pairs:
            if name == "done":
                return
            if name == "error":
                raise errors.from_event(data)
            if (kind := transport.EVENTS.get(name)) is not None:
                yield cast(models.StreamEvent, read_as(kind, data))
        raise errors.ConnectionFailed("The stream ended before the answer.", reached=True)
