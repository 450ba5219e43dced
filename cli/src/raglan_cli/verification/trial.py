"""One document in, one cited answer out, its trace, and all of it deleted again."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import httpx

from raglan_cli.client import Gateway, Refused, documents_path, segment
from raglan_cli.failure import Failure
from raglan_cli.jobs import ENDED
from raglan_cli.verification import Check, failed, passed, skipped

PREFIX: Final = "raglan-verify-"
"""Of the collection's name; what follows is the time of its making and a random part."""

ABANDONED_S: Final = 3600
"""A collection this old is of a run that was killed."""

DOCUMENT: Final = "trial"
QUESTION: Final = "What is the calibration code of the reference pump?"

_POLL_S: Final = 0.2
_QUESTIONS: Final = 3
_AGAIN_S: Final = 1.0
_TRACE_S: Final = 15.0
_CLEAN_S: Final = 15.0


class Trial:
    """A collection of its own in a running deployment.

    Args:
        gateway: of the deployment.
        limit_s: longest wait for the document to be searchable, and for the answer.
    """

    def __init__(self, gateway: Gateway, *, limit_s: float) -> None:
        self._gateway = gateway
        self._limit_s = limit_s
        self._name = f"{PREFIX}{int(time.time())}-{secrets.token_hex(3)}"
        self._code = f"RV-{secrets.randbelow(9000) + 1000}"
        self.trace_id = ""
        """Of the answer."""

    def run(self) -> Check:
        """Add the document, ask for it, delete it.

        Raises:
            Failure: a request of it is refused, or gets no answer.
        """
        with self._collection():
            if fault := self._ingest() or self._ask() or self._delete():
                return fault
        return passed("document", "Added, found, quoted in a cited answer, and deleted.")

    @contextmanager
    def _collection(self) -> Iterator[None]:
        self._sweep()
        try:
            self._gateway.create_collection(self._name)
            yield
        finally:
            with _uninterrupted():
                _drop(self._gateway, self._name)

    def _sweep(self) -> None:
        """Delete what a run that was killed has left."""
        for each in self._gateway.call("GET", "/v1/collections")["collections"]:
            made, _, _ = each["name"].removeprefix(PREFIX).partition("-")
            is_ours = each["name"].startswith(PREFIX) and made.isdecimal()
            if is_ours and time.time() - int(made) > ABANDONED_S:
                _drop(self._gateway, each["name"])

    def _ingest(self) -> Check | None:
        text = (
            f"The calibration code of the reference pump is {self._code}. "
            "This document was written by raglan verify and can be deleted."
        )
        document = {"id": DOCUMENT, "title": "Reference pump", "text": text}
        job_id = self._gateway.call(
            "POST", documents_path(self._name), json={"documents": [document]}
        )["job_id"]
        until = time.monotonic() + self._limit_s
        while (job := self._gateway.job(job_id))["status"] not in ENDED:
            if time.monotonic() > until:
                return failed(
                    "document",
                    f"It was not searchable within {self._limit_s:g} s: job {job_id} is "
                    f"{job['status']} ({_stage_of(job)}).",
                    "The ingester's log says what the job waits for; a busy mesh gets longer by "
                    "--limit.",
                )
            time.sleep(_POLL_S)
        if job["status"] != "succeeded":
            reasons = "; ".join(error["message"] for error in job.get("errors") or ())
            return failed(
                "document",
                f"Its job is {job['status']}: {reasons or 'without a reason'}",
                "The ingester's log has the whole error.",
            )
        return None

    def _ask(self) -> Check | None:
        question = {"query": QUESTION, "collections": [self._name]}
        for _ in range(_QUESTIONS):  # a busy machine may miss the budget of a stage once
            answer = self._gateway.call("POST", "/v1/query", json=question)
            self.trace_id = answer["trace_id"]
            if not answer["degraded"]:
                return self._cited(answer)
            time.sleep(_AGAIN_S)
        named = "; ".join(f"{each['stage']}: {each['reason']}" for each in answer["degraded"])
        return failed(
            "document",
            f"{_QUESTIONS} answers came without a stage: {named}",
            "A service that is slow or down is replaced by its fallback; see its check above.",
        )

    def _cited(self, answer: dict[str, Any]) -> Check | None:
        quotes = [each["quote"] for each in answer["citations"]]
        if quotes and any(self._code in text for text in (answer["answer"], *quotes)):
            return None
        return failed(
            "document",
            f"The answer does not cite it: {answer['answer'][:200]!r}",
            "Ask with raglan ask --trace; a language model that ignores its passages is too "
            "small, or its chat template is wrong.",
        )

    def _delete(self) -> Check | None:
        path = f"{documents_path(self._name)}/{DOCUMENT}"
        self._gateway.call("DELETE", path)
        found = self._gateway.call(
            "POST", "/v1/search", json={"query": QUESTION, "collections": [self._name]}
        )
        if found["passages"]:
            return failed(
                "document",
                "It was deleted and is still found.",
                "Report this with the retriever's log.",
            )
        return None

    def trace(self) -> Check:
        """Check that the answer's trace is whole.

        Raises:
            Failure: the gateway does not answer.
        """
        until = time.monotonic() + _TRACE_S
        while True:
            try:
                found = self._gateway.call("GET", f"/v1/traces/{segment(self.trace_id)}")
            except Refused as refused:
                if refused.http == httpx.codes.NOT_IMPLEMENTED:
                    return skipped("trace", _elsewhere(self.trace_id))
                if refused.http not in (httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE):
                    raise
                found = {"complete": False, "missing": [], "spans": [], "why": refused.message}
            if found["complete"]:
                return _whole(found)
            if time.monotonic() > until:
                return _incomplete(found, self.trace_id)
            time.sleep(_POLL_S)


def _whole(found: dict[str, Any]) -> Check:
    services = {span["service"] for span in found["spans"]}
    wanted = {"gateway", "embedder", "retriever", "reranker", "generator"}
    if absent := sorted(wanted - services):
        return failed(
            "trace",
            f"It has no span of {', '.join(absent)}.",
            "Is OTEL_SDK_DISABLED set there, or does a proxy drop the traceparent header?",
        )
    return passed(
        "trace", f"{len(found['spans'])} spans of {len(services)} services, none missing."
    )


def _incomplete(found: dict[str, Any], trace_id: str) -> Check:
    missing = ", ".join(found["missing"])
    return failed(
        "trace",
        f"Trace {trace_id} is not complete within {_TRACE_S:g} s"
        + (f"; no answer from {missing}." if missing else f". {found.get('why', '')}".rstrip()),
        "The tracer must reach every service (RAGLAN_TRACER_*_ADDRESS); its log names the others.",
    )


def _elsewhere(trace_id: str) -> str:
    return f"The mesh keeps no traces itself; look for {trace_id} in your collector's storage."


def _stage_of(job: dict[str, Any]) -> str:
    stages = job.get("stages") or {}
    at = [name for name, each in stages.items() if each["done"] < each["total"]]
    return f"at {at[0]}" if at else "not begun"


def _drop(gateway: Gateway, name: str) -> None:
    """Delete a collection, trying for a while; one that does not exist is well."""
    until = time.monotonic() + _CLEAN_S
    while True:
        try:
            gateway.delete_collection(name)
        except Refused as refused:
            if refused.http == httpx.codes.NOT_FOUND:
                return
            if refused.http < 500 or time.monotonic() > until:
                raise Failure(_left_behind(name, refused.message)) from None
        except Failure as failure:
            raise Failure(_left_behind(name, failure.message)) from None
        else:
            return
        time.sleep(_POLL_S)


def _left_behind(name: str, why: str) -> str:
    return f"The collection {name} could not be deleted ({why}); the next run in an hour does it."


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the block, which is short."""
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError):  # not the main thread, which alone gets signals
            before[number] = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
