"""The composition root: settings in, the ASGI application out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import raglan
import structlog
from fastapi import FastAPI
from raglan.cross_origin import CrossOriginPolicy, is_loopback
from raglan.database import Database
from raglan.errors import Conflict, RaglanError
from raglan.lifecycle import Lifecycle
from raglan.resilience.breaker import State
from starlette.responses import Response

from raglan_gateway.access.access import Access
from raglan_gateway.access.audit import AuditLog
from raglan_gateway.access.jwks import JsonWebKeys
from raglan_gateway.access.tokens import Claims, TokenVerifier
from raglan_gateway.admission.admission import Admission
from raglan_gateway.admission.checks import Check
from raglan_gateway.admission.rate_limit import RateLimit, spend
from raglan_gateway.admission.shared_count import SharedCount
from raglan_gateway.api import (
    collections,
    documents,
    jobs,
    keys,
    mcp_tools,
    openapi,
    operations,
    query,
    schemas,
    urls,
)
from raglan_gateway.api import sessions as session_routes
from raglan_gateway.api import traces as trace_routes
from raglan_gateway.api.cross_origin import Cors
from raglan_gateway.api.error_handlers import install_error_handlers
from raglan_gateway.api.mcp import McpServer
from raglan_gateway.api.openai import routes as openai_routes
from raglan_gateway.api.request_middleware import RequestMiddleware, reject
from raglan_gateway.caches.cached_pipeline import CachedPipeline
from raglan_gateway.caches.entry import Layer
from raglan_gateway.caches.models import ServedModels
from raglan_gateway.caches.revisions import CurrentRevisions
from raglan_gateway.caches.store import CacheStore
from raglan_gateway.conversation.archive import Archive
from raglan_gateway.conversation.rows import Bounds
from raglan_gateway.conversation.sessions import Sessions
from raglan_gateway.deletions import Deletions
from raglan_gateway.mesh import TRACER, Mesh
from raglan_gateway.metrics import Metrics
from raglan_gateway.pipeline import Budgets, Pipeline
from raglan_gateway.profiles import read as read_profiles
from raglan_gateway.settings import GatewaySettings, listed
from raglan_gateway.shared.answer_cache import AnswerCache
from raglan_gateway.shared.redis_link import RedisLink
from raglan_gateway.store import open_database, require_folder
from raglan_gateway.traces import request_outcome
from raglan_gateway.traces.reporter import TraceReporter
from raglan_gateway.url_fetcher import UrlFetcher
from raglan_gateway.url_policy import UrlPolicy

log: Final = structlog.get_logger()
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": schemas.ErrorReply}
    for status in (400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 500, 501, 503, 504)
}


def build(settings: GatewaySettings, lifecycle: Lifecycle | None = None) -> FastAPI:
    """The gateway. Call inside a running event loop: channels belong to it."""
    lifecycle = lifecycle or Lifecycle("the gateway")
    metrics = Metrics()

    def attempted(service: str, kind: str) -> None:
        metrics.called.attempted(service, kind)
        request_outcome.note_attempt(kind)

    mesh = Mesh(settings, attempted)
    pipeline = Pipeline(
        mesh, _budgets(settings), rerank_candidates=settings.rerank_candidates, observer=metrics
    )
    process = metrics.process(pipeline.load_shedder.observe_lag)
    login = settings.redis_login()
    redis = RedisLink(login) if login.get_secret_value() else None
    answers = AnswerCache(settings.stale_answer_s, mesh.revisions, redis)
    database = open_database(settings)
    archive = Archive(database, _kept(settings), metrics.lost_answers)
    deletions = Deletions(answers, archive)
    store = CacheStore(
        {
            Layer.EMBEDDING: settings.embedding_cache_s,
            Layer.EVIDENCE: settings.evidence_cache_s,
            Layer.ANSWER: settings.answer_cache_s,
        },
        settings.cache_bytes,
        redis,
    )
    revisions = CurrentRevisions(mesh.index_revisions)
    served = ServedModels(
        [name for name in mesh.pools if name.startswith(("embedder", "reranker", "generator"))],
        mesh.describe,
    )
    metrics.watch_cache(store)
    cached = CachedPipeline(
        pipeline,
        store,
        revisions,
        served,
        setup=f"rerank_candidates={settings.rerank_candidates}",
        observer=metrics,
        spend=spend,
    )
    shared_count = SharedCount(redis) if redis else None
    access = _access(settings, database)
    audit = AuditLog(database, settings.audit_entries)
    admission = Admission(
        settings,
        load_shedder=pipeline.load_shedder,
        rate_limit=RateLimit(shared_count),
        check_origin=CrossOriginPolicy(
            listens_on=settings.host,
            allowed_hosts=listed(settings.allowed_hosts),
            origins=listed(settings.cors_origins),
        ).check,
        access=access,
        count=metrics.refused,
    )
    tracer = mesh.pools.get(TRACER)
    reporter = TraceReporter(tracer)
    metrics.watch(
        mesh,
        pipeline,
        lambda: [
            *(["redis"] if redis and redis.state is not State.CLOSED else []),
            *(["database"] if archive.is_away else []),
        ],
    )

    async def prepare() -> None:
        require_folder(settings)
        await access.prepare()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await prepare()
        archive.start()
        access.start()
        audit.start()
        process.start()
        reporter.start()
        process.becomes("serving")
        making = asyncio.create_task(_make_default_collection(mesh, settings.default_collection))
        await mcp.start()
        yield
        process.becomes("stopping")
        await mcp.close()
        making.cancel()
        await asyncio.wait((making,))
        await process.stop()
        await reporter.close()
        if shared_count is not None:
            await shared_count.close()
        await served.close()
        await revisions.close()
        await store.close()
        await answers.close()
        if redis is not None:
            await redis.close()
        await mesh.close()
        await archive.close()
        await access.close()
        await audit.close()
        await database.close()

    app = FastAPI(
        title="Raglan",
        version=raglan.__version__,
        summary="Answers from your documents, with citations.",
        lifespan=lifespan,
        # A redirect would lead to whatever the Host header names.
        redirect_slashes=False,
        # The names of a generated client's functions.
        generate_unique_id_function=lambda route: route.name,
        responses=_ERRORS,
    )
    app.state.lifecycle = lifecycle
    app.state.metrics = metrics
    app.state.prepare = prepare
    app.state.reject_head = partial(_reject_head, metrics)
    app.add_middleware(
        RequestMiddleware,
        admission=admission,
        lifecycle=lifecycle,
        metrics=metrics,
        reporter=reporter,
        audit=audit,
    )
    if settings.cors_origins:
        app.add_middleware(Cors, origins=listed(settings.cors_origins))
    install_error_handlers(app)
    profiles = read_profiles(settings.profiles_file, mesh.generators)
    sessions = Sessions(
        archive, max_turns=settings.max_history_turns, max_chars=settings.max_history_chars
    )
    answering = query.Answering(cached, answers, settings, metrics, sessions, profiles)
    app.include_router(query.router(answering, settings))
    for routes in openai_routes.routers(mesh, deletions, answering, profiles, settings):
        app.include_router(routes)
    app.include_router(collections.router(mesh, deletions))
    app.include_router(documents.router(mesh, deletions, settings))
    app.include_router(session_routes.router(archive))
    app.include_router(urls.router(mesh, _url_fetcher(settings)))
    app.include_router(jobs.router(mesh, settings.heartbeat_s))
    app.include_router(trace_routes.router(tracer, reporter))
    app.include_router(operations.router(mesh, redis, settings, metrics))
    app.include_router(keys.router(access, audit))
    mcp = McpServer(mcp_tools.tools(answering, mesh), max_request_bytes=settings.max_request_bytes)
    app.router.routes.append(mcp.route)
    openapi.install(app)
    return app


def _access(settings: GatewaySettings, database: Database) -> Access:
    tokens = None
    if settings.oidc_issuer:
        tokens = TokenVerifier(
            JsonWebKeys(settings.oidc_jwks_url),
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience,
            algorithms=listed(settings.oidc_algorithms),
            claims=Claims(
                scopes=settings.oidc_scopes_claim,
                tenant=settings.oidc_tenant_claim,
                collections=settings.oidc_collections_claim,
            ),
        )
    return Access(
        database,
        keep_entries=settings.audit_entries,
        admin_key=settings.admin_key.get_secret_value(),
        tokens=tokens,
        host=settings.host,
        is_open=settings.anonymous == "allow" or is_loopback(settings.host),
    )


def _reject_head(metrics: Metrics, error: RaglanError, check: Check) -> Response:
    metrics.refused(check)
    return reject(metrics, error)


def _kept(settings: GatewaySettings) -> Bounds:
    return Bounds(
        age_ms=int(settings.keep_answers_s * 1e3),
        answers=settings.max_kept_answers,
        bytes=settings.max_kept_bytes,
        sessions=settings.max_sessions,
    )


def _url_fetcher(settings: GatewaySettings) -> UrlFetcher | None:
    if not settings.url_hosts:
        return None
    policy = UrlPolicy(listed(settings.url_hosts), listed(settings.url_networks))
    return UrlFetcher(policy, max_bytes=settings.url_max_bytes, timeout_s=settings.url_timeout_s)


def _budgets(settings: GatewaySettings) -> Budgets:
    return Budgets(
        embed_s=settings.embed_budget_ms / 1e3,
        retrieve_s=settings.retrieve_budget_ms / 1e3,
        rerank_s=settings.rerank_budget_ms / 1e3,
        first_token_s=settings.first_token_budget_ms / 1e3,
        cite_s=settings.cite_budget_ms / 1e3,
    )


async def _make_default_collection(mesh: Mesh, name: str) -> None:
    """Make the collection that requests fall back on; waits for the services it needs."""
    delay_s = 0.2
    while name:
        try:
            await collections.create(mesh, name, schemas.Chunking())
        except Conflict as error:
            log.warning("the default collection stays as it is", reason=error.message)
            return
        except RaglanError as error:
            log.debug("the default collection waits", reason=error.message)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, 1)
        else:
            return
