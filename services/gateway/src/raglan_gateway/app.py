"""The composition root: settings in, the ASGI application out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import raglan
import structlog
from fastapi import APIRouter, FastAPI
from raglan.cross_origin import CrossOriginPolicy, is_loopback
from raglan.database import Database
from raglan.errors import Conflict, RaglanError
from raglan.lifecycle import Lifecycle
from raglan.resilience.breaker import State
from raglan.telemetry.process import ProcessMetrics
from raglan.url_fetcher import UrlFetcher
from raglan.url_policy import SettingNames, UrlPolicy
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
    chunks,
    collections,
    document_changes,
    documents,
    jobs,
    keys,
    mcp_tools,
    openapi,
    operations,
    query,
    schemas,
    sources,
    urls,
    versions,
)
from raglan_gateway.api import sessions as session_routes
from raglan_gateway.api import traces as trace_routes
from raglan_gateway.api.cross_origin import Cors
from raglan_gateway.api.error_handlers import install_error_handlers
from raglan_gateway.api.error_responses import error_responses
from raglan_gateway.api.mcp import McpServer
from raglan_gateway.api.openai import routes as openai_routes
from raglan_gateway.api.request_middleware import RequestMiddleware, reject
from raglan_gateway.caches.cached_pipeline import CachedPipeline
from raglan_gateway.caches.entry import Layer
from raglan_gateway.caches.models import ServedModels
from raglan_gateway.caches.revisions import CurrentRevisions
from raglan_gateway.caches.similar import SimilarQuestions
from raglan_gateway.caches.store import CacheStore
from raglan_gateway.collection_profiles import CollectionProfiles
from raglan_gateway.conversation.archive import Archive
from raglan_gateway.conversation.records import Bounds
from raglan_gateway.conversation.sessions import Sessions
from raglan_gateway.deletions import Deletions
from raglan_gateway.mesh import TRACER, Mesh
from raglan_gateway.metrics import Metrics
from raglan_gateway.pipeline import Budgets, Pipeline
from raglan_gateway.profiles import Profiles
from raglan_gateway.profiles import read as read_profiles
from raglan_gateway.settings import GatewaySettings, listed
from raglan_gateway.shared.answer_cache import AnswerCache
from raglan_gateway.shared.redis_link import RedisLink
from raglan_gateway.store import open_database, require_folder
from raglan_gateway.strategies.startup import warn_without_model
from raglan_gateway.traces import request_outcome
from raglan_gateway.traces.reporter import TraceReporter

log: Final = structlog.get_logger()
_ERRORS: Final = (400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 500, 501, 503, 504)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Objects behind the routes, in the order in which they are made; `_running` owns them."""

    settings: GatewaySettings
    metrics: Metrics
    mesh: Mesh
    pipeline: Pipeline
    redis: RedisLink | None
    answers: AnswerCache
    deletions: Deletions
    database: Database
    archive: Archive
    store: CacheStore
    similar: SimilarQuestions
    revisions: CurrentRevisions
    served: ServedModels
    shared_count: SharedCount | None
    access: Access
    audit: AuditLog
    process: ProcessMetrics
    reporter: TraceReporter


def build(settings: GatewaySettings, lifecycle: Lifecycle | None = None) -> FastAPI:
    """The gateway. Call inside a running event loop: channels belong to it."""
    lifecycle = lifecycle or Lifecycle("the gateway")
    parts = _make(settings, Metrics())
    profiles = read_profiles(settings.profiles_file, parts.mesh.generators)
    defaults = CollectionProfiles(parts.mesh.collection_settings)
    answering = _answering(parts, profiles, defaults)
    mcp = McpServer(
        mcp_tools.tools(answering, parts.mesh), max_request_bytes=settings.max_request_bytes
    )

    async def prepare() -> None:
        require_folder(settings)
        await parts.access.prepare()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await prepare()
        async with _running(parts, mcp, profiles):
            yield

    app = FastAPI(
        title="Raglan",
        version=raglan.__version__,
        summary="Answers from your documents, with citations.",
        lifespan=lifespan,
        # A redirect would lead to whatever the Host header names.
        redirect_slashes=False,
        # The names of a generated client's functions.
        generate_unique_id_function=lambda route: route.name,
        responses=error_responses(schemas.ErrorReply, _ERRORS),
    )
    app.state.lifecycle = lifecycle
    app.state.metrics = parts.metrics
    app.state.prepare = prepare
    app.state.reject_head = partial(_reject_head, parts.metrics)
    app.add_middleware(
        RequestMiddleware,
        admission=_admission(parts),
        lifecycle=lifecycle,
        metrics=parts.metrics,
        reporter=parts.reporter,
        audit=parts.audit,
    )
    if settings.cors_origins:
        app.add_middleware(Cors, origins=listed(settings.cors_origins))
    install_error_handlers(app)
    for routes in _routers(parts, answering, profiles, defaults):
        app.include_router(routes)
    app.router.routes.append(mcp.route)
    openapi.install(app)
    return app


def _make(settings: GatewaySettings, metrics: Metrics) -> _Parts:
    def attempted(service: str, kind: str) -> None:
        metrics.called.attempted(service, kind)
        request_outcome.note_attempt(kind)

    mesh = Mesh(settings, attempted)
    pipeline = Pipeline(
        mesh, _budgets(settings), rerank_candidates=settings.rerank_candidates, observer=metrics
    )
    login = settings.redis_login()
    redis = RedisLink(login) if login.get_secret_value() else None
    database = open_database(settings)
    archive = Archive(database, _kept(settings), metrics.lost_answers)
    metrics.watch(
        mesh,
        pipeline,
        lambda: [
            *(["redis"] if redis and redis.state is not State.CLOSED else []),
            *(["database"] if archive.is_away else []),
        ],
    )
    answers = AnswerCache(settings.stale_answer_s, mesh.revisions, redis)
    similar = SimilarQuestions(
        settings.semantic_cache_similarity, settings.semantic_cache_bytes, settings.answer_cache_s
    )
    return _Parts(
        settings=settings,
        metrics=metrics,
        mesh=mesh,
        pipeline=pipeline,
        redis=redis,
        answers=answers,
        deletions=Deletions(answers, archive, similar, mesh.changing_jobs, mesh.revisions),
        database=database,
        archive=archive,
        store=_cache_store(settings, redis),
        similar=similar,
        revisions=CurrentRevisions(mesh.index_revisions),
        served=ServedModels(
            [name for name in mesh.pools if name.startswith(("embedder", "reranker", "generator"))],
            mesh.describe,
        ),
        shared_count=SharedCount(redis) if redis else None,
        access=_access(settings, database),
        audit=AuditLog(database, settings.audit_entries),
        process=metrics.process(pipeline.load_shedder.observe_lag),
        reporter=TraceReporter(mesh.pools.get(TRACER)),
    )


@asynccontextmanager
async def _running(parts: _Parts, mcp: McpServer, profiles: Profiles) -> AsyncIterator[None]:
    """Start what works beside the requests; close everything at the end, also after a failure."""
    async with AsyncExitStack() as stack:
        own = (
            *(parts.database, parts.audit, parts.access, parts.archive, parts.mesh, parts.redis),
            parts.deletions,
            *(parts.answers, parts.store, parts.revisions, parts.served, parts.shared_count),
            parts.reporter,
        )
        for each in own:
            if each is not None:
                stack.push_async_callback(each.close)
        stack.push_async_callback(parts.process.stop)
        for started in (
            *(parts.archive, parts.access, parts.audit, parts.process, parts.reporter),
            parts.deletions,
        ):
            started.start()
        parts.process.becomes("serving")
        name = parts.settings.default_collection
        making = asyncio.create_task(_make_default_collection(parts.mesh, name))
        stack.push_async_callback(_cancelled, making)
        warning = asyncio.create_task(warn_without_model(profiles, parts.served.known))
        stack.push_async_callback(_cancelled, warning)
        await mcp.start()
        stack.push_async_callback(mcp.close)
        stack.callback(parts.process.becomes, "stopping")
        yield


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def _answering(parts: _Parts, profiles: Profiles, defaults: CollectionProfiles) -> query.Answering:
    settings = parts.settings
    parts.metrics.watch_cache(parts.store, parts.similar)
    cached = CachedPipeline(
        parts.pipeline,
        parts.store,
        parts.revisions,
        parts.served,
        similar=parts.similar,
        setup=f"rerank_candidates={settings.rerank_candidates}",
        observer=parts.metrics,
        spend=spend,
    )
    sessions = Sessions(
        parts.archive, max_turns=settings.max_history_turns, max_chars=settings.max_history_chars
    )
    return query.Answering(
        cached, parts.answers, settings, parts.metrics, sessions, profiles, defaults
    )


def _routers(
    parts: _Parts, answering: query.Answering, profiles: Profiles, defaults: CollectionProfiles
) -> Iterator[APIRouter]:
    settings, mesh = parts.settings, parts.mesh
    deletions = parts.deletions
    yield query.router(answering, settings)
    yield from openai_routes.routers(mesh, deletions, answering, profiles, settings)
    yield collections.router(mesh, deletions, profiles, defaults)
    yield documents.router(mesh, deletions, settings)
    yield document_changes.router(mesh, deletions)
    yield versions.router(mesh)
    yield chunks.router(mesh)
    yield session_routes.router(parts.archive)
    yield urls.router(mesh, _url_fetcher(settings))
    yield jobs.router(mesh, deletions, settings.heartbeat_s)
    yield sources.router(mesh)
    yield trace_routes.router(mesh.pools.get(TRACER), parts.reporter)
    yield operations.router(mesh, parts.redis, settings, parts.metrics)
    yield keys.router(parts.access, parts.audit)


def _admission(parts: _Parts) -> Admission:
    settings = parts.settings
    return Admission(
        settings,
        load_shedder=parts.pipeline.load_shedder,
        rate_limit=RateLimit(parts.shared_count),
        check_origin=CrossOriginPolicy(
            listens_on=settings.host,
            allowed_hosts=listed(settings.allowed_hosts),
            origins=listed(settings.cors_origins),
        ).check,
        access=parts.access,
        count=parts.metrics.refused,
    )


def _cache_store(settings: GatewaySettings, redis: RedisLink | None) -> CacheStore:
    lifetimes = {
        Layer.EMBEDDING: settings.embedding_cache_s,
        Layer.EVIDENCE: settings.evidence_cache_s,
        Layer.ANSWER: settings.answer_cache_s,
    }
    return CacheStore(lifetimes, settings.cache_bytes, redis)


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
                access=settings.oidc_access_claim,
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


_URL_SETTINGS: Final = SettingNames(
    hosts="RAGLAN_GATEWAY_URL_HOSTS",
    networks="RAGLAN_GATEWAY_URL_NETWORKS",
    max_bytes="RAGLAN_GATEWAY_URL_MAX_BYTES",
    timeout="RAGLAN_GATEWAY_URL_TIMEOUT_S",
)


def _url_fetcher(settings: GatewaySettings) -> UrlFetcher | None:
    if not settings.url_hosts:
        return None
    policy = UrlPolicy(
        listed(settings.url_hosts), listed(settings.url_networks), names=_URL_SETTINGS
    )
    return UrlFetcher(policy, max_bytes=settings.url_max_bytes, timeout_s=settings.url_timeout_s)


def _budgets(settings: GatewaySettings) -> Budgets:
    return Budgets(
        embed_s=settings.embed_budget_ms / 1e3,
        retrieve_s=settings.retrieve_budget_ms / 1e3,
        rerank_s=settings.rerank_budget_ms / 1e3,
        first_token_s=settings.first_token_budget_ms / 1e3,
        cite_s=settings.cite_budget_ms / 1e3,
        strategy_s=settings.strategy_budget_ms / 1e3,
        collection_s=settings.collection_budget_ms / 1e3,
        expand_s=settings.expand_budget_ms / 1e3,
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
