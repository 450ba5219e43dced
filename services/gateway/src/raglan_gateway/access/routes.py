"""The scope that each route needs, and the changes that the audit log keeps.

A route without an entry needs `admin`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from raglan_gateway.caller import Scope


@dataclass(frozen=True, slots=True)
class Rule:
    """Requirements of a route."""

    scope: Scope
    action: str = ""
    """Name of the change in the audit log; empty for none, or where the route records it itself."""


PUBLIC: Final = frozenset(
    {
        *("/healthz", "/startupz", "/readyz", "/metrics", "/metrics/targets"),
        *("/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"),
    }
)
"""Paths that need no key: probes, Prometheus, and the description of the API."""

QUERY: Final = Rule(Scope.QUERY)
INGEST: Final = Rule(Scope.INGEST)
ADMIN: Final = Rule(Scope.ADMIN)
_COLLECTION: Final = "/v1/collections/{name}"
_STORE: Final = "/v1/vector_stores/{store_id}"
_DOCUMENT: Final = "/v1/collections/{name}/documents/{document_id:path}"

RULES: Final[Mapping[tuple[str, str], Rule]] = {
    ("POST", "/v1/query"): QUERY,
    ("POST", "/v1/search"): QUERY,
    ("POST", "/v1/chat/completions"): QUERY,
    ("POST", "/v1/responses"): QUERY,
    ("POST", "/v1/embeddings"): QUERY,
    ("POST", "/v1/rerank"): QUERY,
    ("POST", "/v2/rerank"): QUERY,
    ("POST", "/mcp"): QUERY,
    ("GET", "/v1/models"): QUERY,
    ("GET", "/v1/models/{name:path}"): QUERY,
    ("GET", "/v1/sessions"): QUERY,
    ("POST", "/v1/sessions"): QUERY,
    ("GET", "/v1/sessions/{session_id}"): QUERY,
    ("PATCH", "/v1/sessions/{session_id}"): QUERY,
    ("DELETE", "/v1/sessions/{session_id}"): QUERY,
    ("GET", "/v1/sessions/{session_id}/export"): QUERY,
    ("GET", "/v1/queries/{query_id}"): QUERY,
    ("DELETE", "/v1/queries/{query_id}"): QUERY,
    ("PUT", "/v1/queries/{query_id}/feedback"): QUERY,
    ("GET", "/v1/collections"): QUERY,
    ("POST", "/v1/collections"): Rule(Scope.INGEST, "collection.create"),
    ("GET", _COLLECTION): QUERY,
    ("PATCH", _COLLECTION): Rule(Scope.INGEST, "collection.update"),
    ("DELETE", _COLLECTION): Rule(Scope.INGEST, "collection.delete"),
    ("GET", "/v1/collections/{name}/documents"): QUERY,
    ("POST", "/v1/collections/{name}/documents"): INGEST,
    ("POST", "/v1/collections/{name}/documents/urls"): INGEST,
    ("POST", "/v1/collections/{name}/documents/delete"): Rule(Scope.INGEST, "documents.delete"),
    ("POST", "/v1/collections/{name}/documents/tag"): Rule(Scope.INGEST, "documents.tag"),
    ("GET", _DOCUMENT): QUERY,
    ("PATCH", _DOCUMENT): Rule(Scope.INGEST, "document.update"),
    ("DELETE", _DOCUMENT): Rule(Scope.INGEST, "document.delete"),
    ("GET", "/v1/collections/{name}/versions/{document_id:path}"): QUERY,
    ("POST", "/v1/chunks"): INGEST,
    ("GET", "/v1/files"): INGEST,
    ("POST", "/v1/files"): INGEST,
    ("GET", "/v1/files/{file_id}"): INGEST,
    ("DELETE", "/v1/files/{file_id}"): Rule(Scope.INGEST, "file.delete"),
    ("GET", "/v1/files/{file_id}/content"): INGEST,
    ("GET", "/v1/vector_stores"): QUERY,
    ("POST", "/v1/vector_stores"): Rule(Scope.INGEST, "collection.create"),
    ("GET", _STORE): QUERY,
    ("POST", _STORE): INGEST,
    ("DELETE", _STORE): Rule(Scope.INGEST, "collection.delete"),
    ("POST", f"{_STORE}/search"): QUERY,
    ("GET", f"{_STORE}/files"): QUERY,
    ("POST", f"{_STORE}/files"): INGEST,
    ("GET", f"{_STORE}/files/{{file_id}}"): QUERY,
    ("POST", f"{_STORE}/files/{{file_id}}"): INGEST,
    ("DELETE", f"{_STORE}/files/{{file_id}}"): Rule(Scope.INGEST, "document.delete"),
    ("GET", f"{_STORE}/files/{{file_id}}/content"): QUERY,
    ("POST", f"{_STORE}/file_batches"): INGEST,
    ("GET", f"{_STORE}/file_batches/{{batch_id}}"): INGEST,
    ("GET", f"{_STORE}/file_batches/{{batch_id}}/files"): INGEST,
    ("POST", f"{_STORE}/file_batches/{{batch_id}}/cancel"): Rule(Scope.INGEST, "job.cancel"),
    ("GET", "/v1/jobs"): INGEST,
    ("GET", "/v1/jobs/{job_id}"): INGEST,
    ("GET", "/v1/jobs/{job_id}/events"): INGEST,
    ("POST", "/v1/jobs/{job_id}/cancel"): Rule(Scope.INGEST, "job.cancel"),
    ("POST", "/v1/jobs/{job_id}/retry"): Rule(Scope.INGEST, "job.retry"),
    ("GET", "/v1/sources"): INGEST,
    ("GET", "/v1/sources/{name}"): INGEST,
    ("POST", "/v1/sources/{name}/sync"): Rule(Scope.INGEST, "source.sync"),
    ("GET", "/v1/keys"): ADMIN,
    ("POST", "/v1/keys"): ADMIN,
    ("GET", "/v1/keys/{key_id}"): ADMIN,
    ("DELETE", "/v1/keys/{key_id}"): ADMIN,
    ("POST", "/v1/keys/{key_id}/rotate"): ADMIN,
    ("GET", "/v1/audit"): ADMIN,
    ("GET", "/v1/status"): ADMIN,
    ("GET", "/v1/traces"): ADMIN,
    ("GET", "/v1/traces/{trace_id}"): ADMIN,
}
"""Method and template of a route -> its rule. The first entry that fits a path holds."""


def rule_of(method: str, path: str) -> Rule:
    """Return the rule for a request; that of admins where no entry fits."""
    if method == "HEAD":
        method = "GET"
    if found := RULES.get((method, path)):
        return found
    for pattern, rule in _PATTERNS.get(method, ()):
        if pattern.fullmatch(path):
            return rule
    return ADMIN


def _compiled() -> dict[str, list[tuple[re.Pattern[str], Rule]]]:
    found: dict[str, list[tuple[re.Pattern[str], Rule]]] = {}
    for (method, template), rule in RULES.items():
        if "{" in template:
            pattern = re.sub(r"\{\w+\}", "[^/]+", re.sub(r"\{\w+:path\}", ".+", template))
            found.setdefault(method, []).append((re.compile(pattern), rule))
    return found


_PATTERNS: Final = _compiled()
