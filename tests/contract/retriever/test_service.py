"""The retriever over real gRPC, and what a kill -9 leaves of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
from raglan import tensors
from raglan.rpc.server import Server
from raglan.v1 import common_pb2, retriever_pb2, retriever_pb2_grpc
from raglan_retriever.app import build
from raglan_retriever.settings import RetrieverSettings

MODEL = common_pb2.ModelIdentity(id="m", revision="r", dimension=4)
ROWS = np.eye(4, dtype=np.float32)


@asynccontextmanager
async def serving(**settings):
    chosen = RetrieverSettings(port=0, shutdown_drain_s=0, **settings)
    server = Server(build(chosen), chosen)
    await server.start()
    options = [("grpc.max_receive_message_length", chosen.max_message_bytes)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
        yield retriever_pb2_grpc.RetrieverServiceStub(channel)
    await server.stop()


@pytest.fixture(params=["edge", "qdrant"])
async def stub(request, tmp_path):
    if request.param == "edge":
        async with serving(data_dir=tmp_path) as made:
            yield made
        return
    url, seen = request.getfixturevalue("qdrant_http")
    async with serving(store="qdrant", qdrant_url=url) as made:
        yield made
    assert seen, "nothing went over HTTP"


def chunks(*texts: str) -> list[retriever_pb2.Chunk]:
    return [
        retriever_pb2.Chunk(
            chunk_id=f"d{n}#0",
            document_id=f"d{n}",
            text=text,
            end=len(text),
            heading_path=["Top"],
            metadata_json=json.dumps({"n": n}),
        )
        for n, text in enumerate(texts)
    ]


async def fill(stub, name: str = "c", readability: float | None = None) -> None:
    create = retriever_pb2.CreateCollectionRequest(
        name=name, embedder=MODEL, chunking=retriever_pb2.Chunking(max_chars=9, overlap_chars=1)
    )
    await stub.CreateCollection(create, timeout=20)
    upsert = retriever_pb2.UpsertRequest(
        collection=name,
        embedder=MODEL,
        chunks=chunks("red apples", "green pears", "blue plums"),
        vectors=tensors.pack(ROWS[:3]),
        readability=[] if readability is None else [readability] * 3,
    )
    reply = await stub.Upsert(upsert, timeout=20)
    assert reply.upserted == 3
    assert reply.timing.compute_ns > 0


def search(**changes) -> retriever_pb2.SearchRequest:
    fields = {
        "collections": ["c"],
        "text": "pears",
        "vector": tensors.pack(ROWS[:1]),
        "embedder": MODEL,
        "limit": 3,
    }
    return retriever_pb2.SearchRequest(**fields | changes)


async def refused(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


async def test_a_hybrid_search_returns_ranked_passages_with_their_scores(stub):
    await fill(stub)
    reply = await stub.Search(search(), timeout=10)
    assert [passage.rank for passage in reply.passages] == [1, 2, 3]
    by_id = {passage.chunk_id: passage for passage in reply.passages}
    pears = by_id["d1#0"]
    assert (pears.text, pears.end, list(pears.heading_path)) == ("green pears", 11, ["Top"])
    assert (pears.collection, pears.metadata_json) == ("c", '{"n": 1}')
    assert pears.scores.HasField("lexical")
    assert by_id["d0#0"].scores.dense == pytest.approx(1.0)
    assert not by_id["d0#0"].scores.HasField("lexical")
    fused = [passage.scores.fused for passage in reply.passages]
    assert fused == sorted(fused, reverse=True)


async def test_the_dense_leg_is_ignored_in_an_unread_language(stub):
    """The dense leg is worth nothing in a language that its model does not read."""
    await fill(stub, readability=0.1)
    (first, *rest) = (await stub.Search(search(readability=0.1), timeout=10)).passages
    assert first.chunk_id == "d1#0"
    assert len(rest) == 2, "what only the dense leg found comes last, and stays"
    assert not any(each.scores.HasField("dense") for each in (first, *rest))


async def test_one_rare_word_keeps_the_dense_leg(stub):
    """A readable collection keeps the dense leg for a query of one rare word."""
    await fill(stub, readability=0.95)
    passages = (await stub.Search(search(readability=0.1), timeout=10)).passages
    assert all(each.scores.HasField("dense") for each in passages)


async def test_each_collection_is_judged_by_itself(stub):
    await fill(stub, "read", readability=0.95)
    await fill(stub, "unread", readability=0.0)
    found = await stub.Search(
        search(collections=["read", "unread"], readability=0.6, text="pears"), timeout=10
    )
    dense = {each.collection: each.scores.HasField("dense") for each in found.passages}
    assert dense["read"]
    assert not dense.get("unread", False)


async def test_copies_of_one_text_take_one_place(stub):
    await fill(stub)
    copies = chunks(*["Green  PEARS"] * 40, "pears and apples", "apples", "plums and pears")
    for copy in copies:
        copy.chunk_id = f"copy-{copy.chunk_id}"
    await stub.Upsert(
        retriever_pb2.UpsertRequest(
            collection="c",
            embedder=MODEL,
            chunks=copies,
            vectors=tensors.pack(np.tile(ROWS[1:2], (len(copies), 1))),
        ),
        timeout=20,
    )
    for mode in ("HYBRID", "LEXICAL"):
        request = search(limit=3, mode=f"SEARCH_MODE_{mode}")
        found = (await stub.Search(request, timeout=10)).passages
        texts = [" ".join(each.text.lower().split()) for each in found]
        assert len(texts) == len(set(texts)) == 3, mode
        assert found[texts.index("green pears")].duplicates == 40, mode


async def test_one_legged_searches_leave_the_other_scores_unset(stub):
    await fill(stub)
    dense = await stub.Search(search(mode="SEARCH_MODE_DENSE", text=""), timeout=10)
    assert not any(p.scores.HasField("fused") for p in dense.passages)
    words = retriever_pb2.SearchRequest(
        collections=["c"], text="pears", mode="SEARCH_MODE_LEXICAL", limit=3
    )
    found = (await stub.Search(words, timeout=10)).passages
    assert [p.chunk_id for p in found] == ["d1#0"]
    assert not found[0].scores.HasField("dense")


async def test_a_request_chooses_method_and_weights(stub):
    await fill(stub)
    for method in ("DBSF", "MIN_MAX", "RRF"):
        only_words = retriever_pb2.Fusion(
            method=f"FUSION_METHOD_{method}", dense_weight=0, lexical_weight=1
        )
        reply = await stub.Search(search(fusion=only_words), timeout=10)
        assert reply.passages[0].chunk_id == "d1#0", method


MALFORMED_SEARCHES = [
    ({"limit": 0}, "limit is 0; it must be 1 to 1000"),
    ({"limit": 10_000}, "limit is 10000"),
    ({"collections": []}, "names no collection"),
    ({"text": "  "}, "needs a text"),
    ({"text": "x" * 40_000}, "has 40000 characters; the limit is 32768"),
    ({"vector": None}, "needs a vector"),
    ({"embedder": None}, "needs a vector and the model"),
    ({"vector": tensors.pack(ROWS[:2])}, "has 2 vectors"),
    ({"vector": tensors.pack(ROWS[:1] * np.float32(np.nan))}, "not finite"),
    ({"vector": common_pb2.Tensor(data=b"abc", rows=1, dim=4, dtype=1)}, "holds 3 bytes"),
    ({"vector": tensors.pack(ROWS[:1, :3])}, "has 3 values"),
    ({"mode": 9}, "search mode is 9"),
    ({"filter": retriever_pb2.Filter()}, "filter is empty"),
    ({"fusion": retriever_pb2.Fusion(method=9)}, "fusion method is 9"),
    ({"fusion": retriever_pb2.Fusion(dense_weight=-1)}, "fusion weight is -1.0"),
    ({"collections": ["../c"]}, "cannot name a collection"),
    ({"readability": 1.5}, "readability is 1.5; it must be 0 to 1"),
    ({"readability": float("nan")}, "readability is nan"),
]


async def test_a_malformed_search_is_refused_with_a_sentence(stub, subtests):
    await fill(stub)
    for changes, says in MALFORMED_SEARCHES:
        with subtests.test(says):
            code, details = await refused(stub.Search(search(**changes), timeout=10))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert says in details


INFINITE = tensors.pack(np.full((3, 4), np.inf, dtype=np.float32))
MALFORMED_UPSERTS = [
    ({"vectors": tensors.pack(ROWS[:2])}, "shape (2, 4); (3, 4) is needed"),
    ({"vectors": tensors.pack(ROWS[:3, :2])}, "shape (3, 2)"),
    (
        {"vectors": INFINITE},
        "'d0#0' holds values",
    ),
    ({"chunks": chunks(*("x",) * 1001)}, "brings 1001 chunks; the limit is 1000"),
    ({"chunks": [retriever_pb2.Chunk(document_id="d")] * 3}, "chunk_id has 0 characters"),
    ({"chunks": [retriever_pb2.Chunk(chunk_id="d")] * 3}, "document id has 0 characters"),
]


async def test_a_malformed_upsert_is_refused_with_a_sentence(stub, subtests):
    await fill(stub)
    fields = {
        "collection": "c",
        "embedder": MODEL,
        "chunks": chunks("a", "b", "c"),
        "vectors": tensors.pack(ROWS[:3]),
    }
    for changes, says in MALFORMED_UPSERTS:
        with subtests.test(says):
            request = retriever_pb2.UpsertRequest(**fields | changes)
            code, details = await refused(stub.Upsert(request, timeout=10))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert says in details


async def test_vectors_of_another_model_are_refused_with_failed_precondition(stub):
    await fill(stub)
    other = common_pb2.ModelIdentity(id="other", revision="r", dimension=4)
    code, details = await refused(stub.Search(search(embedder=other), timeout=10))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "come from m at revision r" in details
    assert "come from other at revision r" in details


async def test_collections_are_made_described_listed_and_removed(stub):
    await fill(stub, "b")
    await fill(stub, "a")
    listed = await stub.ListCollections(retriever_pb2.ListCollectionsRequest(), timeout=10)
    assert [(c.name, c.chunks, c.documents) for c in listed.collections] == [
        ("a", 3, 3),
        ("b", 3, 3),
    ]
    one = await stub.GetCollection(retriever_pb2.GetCollectionRequest(name="a"), timeout=10)
    assert one.embedder == MODEL
    assert (one.chunking.max_chars, one.chunking.overlap_chars) == (9, 1)
    assert one.chunking.strategy == "structure"
    gone = await stub.DeleteCollection(retriever_pb2.DeleteCollectionRequest(name="a"), timeout=10)
    assert gone.deleted_chunks == 3
    code, details = await refused(
        stub.GetCollection(retriever_pb2.GetCollectionRequest(name="a"), timeout=10)
    )
    assert (code, details) == (grpc.StatusCode.NOT_FOUND, "There is no collection 'a'.")


async def test_documents_are_read_counted_and_removed(stub):
    await fill(stub)
    get = retriever_pb2.GetDocumentChunksRequest(collection="c", document_id="d1")
    assert list((await stub.GetDocument(get, timeout=10)).chunks) == [
        chunks("red apples", "green pears")[1]
    ]
    delete = retriever_pb2.DeleteRequest(collection="c", document_ids=["d1"])
    assert (await stub.Delete(delete, timeout=10)).deleted_chunks == 1
    count = retriever_pb2.CountChunksRequest(collection="c", document_ids=["d1", "d2"])
    assert list((await stub.CountChunks(count, timeout=10)).counts) == [0, 1]
    assert (await refused(stub.GetDocument(get, timeout=10)))[0] is grpc.StatusCode.NOT_FOUND


async def test_info_names_the_store_and_the_limits(stub):
    info = await stub.GetInfo(common_pb2.GetInfoRequest(), timeout=10)
    assert (info.service, info.pid) == ("retriever", os.getpid())
    assert info.engine in ("edge", "qdrant")
    assert not info.HasField("model")
    assert info.limits["max_upsert_chunks"] == 1000


async def test_a_missing_qdrant_server_stops_the_start(
    unused_tcp_port,
):
    """Without its qdrant server it does not start and says where to look."""
    settings = RetrieverSettings(
        port=0, store="qdrant", qdrant_url=f"http://127.0.0.1:{unused_tcp_port}"
    )
    service = build(settings)
    with pytest.raises(Exception, match="RAGLAN_RETRIEVER_QDRANT_URL"):
        await service.start()
    await service.close()


@asynccontextmanager
async def process(data_dir, port: int, **settings: str):
    """A retriever process that serves, and a stub for it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAGLAN_")} | {
        "RAGLAN_RETRIEVER_PORT": str(port),
        "RAGLAN_RETRIEVER_DATA_DIR": str(data_dir),
        "RAGLAN_RETRIEVER_SHUTDOWN_DRAIN_S": "0",
        **settings,
    }
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "raglan_retriever", env=environment
    )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
            await stub.GetInfo(common_pb2.GetInfoRequest(), timeout=30, wait_for_ready=True)
            yield running, stub
    finally:
        if running.returncode is None:
            running.terminate()
        await running.wait()


async def test_a_kill_9_loses_nothing_that_was_acknowledged(tmp_path, unused_tcp_port):
    data_dir = tmp_path / "index"
    acknowledged = 0
    async with process(data_dir, unused_tcp_port) as (running, stub):
        await fill(stub)
        rows = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
        killing = asyncio.get_running_loop().call_later(0.5, running.send_signal, signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError) as cut_off:
            while True:
                some = [
                    retriever_pb2.Chunk(chunk_id=f"x{acknowledged + n}", document_id="x", text="t")
                    for n in range(200)
                ]
                request = retriever_pb2.UpsertRequest(
                    collection="c", embedder=MODEL, chunks=some, vectors=tensors.pack(rows)
                )
                await stub.Upsert(request, timeout=30)
                acknowledged += 200
        assert cut_off.value.code() is grpc.StatusCode.UNAVAILABLE
        killing.cancel()
        assert await running.wait() == -signal.SIGKILL
    assert acknowledged > 0
    async with process(data_dir, unused_tcp_port) as (running, stub):
        count = retriever_pb2.CountChunksRequest(collection="c", document_ids=["x", "d0"])
        counts = (await stub.CountChunks(count, timeout=20)).counts
        assert counts[0] >= acknowledged
        assert counts[1] == 1
        reply = await stub.Search(search(), timeout=10)
        assert reply.passages[0].document_id in ("d0", "d1")
        running.terminate()
        assert await running.wait() == 0


async def indexed(stub, wanted):
    """The vector index of the collection once `wanted` holds for it."""
    async with asyncio.timeout(60):
        while True:
            request = retriever_pb2.GetCollectionRequest(name="c")
            found = (await stub.GetCollection(request, timeout=20)).index
            if wanted(found):
                return found
            await asyncio.sleep(0.01)


async def test_a_kill_9_while_an_index_is_built_leaves_the_present_one(tmp_path, unused_tcp_port):
    """And the other one is built after the restart, from what is stored."""
    data_dir = tmp_path / "index"
    settings = {"RAGLAN_RETRIEVER_OPTIMIZE_AFTER_CHUNKS": "2000"}
    rows = np.random.default_rng(0).standard_normal((2_000, 4)).astype(np.float32)

    async def nearest(stub) -> list[list[str]]:
        found = []
        for row in rows[:10]:
            request = search(text="", vector=tensors.pack(row[None]), mode="SEARCH_MODE_DENSE")
            found.append([p.chunk_id for p in (await stub.Search(request, timeout=10)).passages])
        return found

    async with process(data_dir, unused_tcp_port, **settings) as (running, stub):
        await fill(stub)
        for start in (0, 1_000):
            some = [
                retriever_pb2.Chunk(chunk_id=f"x{n}", document_id="x", text=f"word{n}")
                for n in range(start, start + 1_000)
            ]
            request = retriever_pb2.UpsertRequest(
                collection="c",
                embedder=MODEL,
                chunks=some,
                vectors=tensors.pack(rows[start : start + 1_000]),
            )
            await stub.Upsert(request, timeout=30)
        present = await indexed(stub, lambda found: found.state == "ready")
        assert (present.m, present.recall_target) == (16, 0.95)
        before = await nearest(stub)
        more = retriever_pb2.UpdateCollectionRequest(name="c", recall_target=0.99)
        await stub.UpdateCollection(more, timeout=20)
        await indexed(stub, lambda found: found.state == "building")
        running.kill()
        assert await running.wait() == -signal.SIGKILL
    async with process(data_dir, unused_tcp_port, **settings) as (running, stub):
        assert await nearest(stub) == before
        built = await indexed(stub, lambda found: found.state == "ready" and found.m == 32)
        assert (built.recall_target, built.chunks) == (0.99, 2_003)
        assert await nearest(stub) == before


async def test_a_recall_out_of_range_is_refused(stub):
    await fill(stub)
    code, words = await refused(
        stub.UpdateCollection(
            retriever_pb2.UpdateCollectionRequest(name="c", recall_target=0.5), timeout=10
        )
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "0.8 to 0.999" in words


async def test_a_recall_is_refused_by_a_store_that_plans_no_index(qdrant_http):
    url, _ = qdrant_http
    async with serving(store="qdrant", qdrant_url=url) as stub:
        await fill(stub)
        aimed = retriever_pb2.UpdateCollectionRequest(name="c", recall_target=0.99)
        code, words = await refused(stub.UpdateCollection(aimed, timeout=10))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert "RAGLAN_RETRIEVER_STORE" in words
        found = await stub.GetCollection(retriever_pb2.GetCollectionRequest(name="c"), timeout=10)
        assert not found.HasField("index")


async def test_a_damaged_collection_is_listed_with_its_error(tmp_path):
    async with serving(data_dir=tmp_path) as stub:
        for name in ("whole", "broken"):
            await fill(stub, name)
    (tmp_path / "broken" / "collection.json").write_text("{")
    async with serving(data_dir=tmp_path) as stub:
        listed = (
            await stub.ListCollections(retriever_pb2.ListCollectionsRequest(), timeout=10)
        ).collections
        assert [collection.name for collection in listed] == ["broken", "whole"]
        assert "collection.json cannot be read" in listed[0].error
        assert listed[1].error == ""
        info = await stub.GetInfo(common_pb2.GetInfoRequest(), timeout=10)
        assert info.load["damaged_collections"] == 1
        (problem,) = info.problems
        assert "'broken'" in problem
        assert str(tmp_path / "broken") in problem
        assert (await stub.Search(search(collections=["whole"]), timeout=10)).passages
        code, words = await refused(stub.Search(search(collections=["broken"]), timeout=10))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "'broken' is set aside: it is damaged" in words


async def test_a_document_larger_than_a_message_is_read_in_pages(tmp_path):
    """Of 7 chunks with 3 MiB each."""
    async with serving(data_dir=tmp_path) as stub:
        await fill(stub)
        for ordinal in range(7):
            large = retriever_pb2.Chunk(
                chunk_id=f"large#{ordinal}",
                document_id="large",
                ordinal=ordinal,
                text="text",
                end=4,
                structure=b"x" * (3 * 1024 * 1024),
                metadata_json="{}",
            )
            request = retriever_pb2.UpsertRequest(
                collection="c", embedder=MODEL, chunks=[large], vectors=tensors.pack(ROWS[:1])
            )
            await stub.Upsert(request, timeout=30)
        get = retriever_pb2.GetDocumentChunksRequest(collection="c", document_id="large")
        seen = []
        while True:
            page = await stub.GetDocument(get, timeout=30)
            seen.append([chunk.ordinal for chunk in page.chunks])
            get.offset = page.next_offset
            if not get.offset:
                break
        assert seen == [[0, 1], [2, 3], [4, 5], [6]]


async def test_a_collection_made_anew_is_told_from_the_one_before(stub):
    described = retriever_pb2.GetCollectionRequest(name="c")
    await fill(stub)
    first = (await stub.GetCollection(described, timeout=20)).created
    assert first == (await stub.GetCollection(described, timeout=20)).created != ""
    await stub.DeleteCollection(retriever_pb2.DeleteCollectionRequest(name="c"), timeout=20)
    await fill(stub)
    assert (await stub.GetCollection(described, timeout=20)).created != first


async def test_revisions_are_told_without_a_search(stub):
    await fill(stub)
    asked = retriever_pb2.GetIndexRevisionsRequest(collections=["nowhere", "c"])
    before = (await stub.GetIndexRevisions(asked, timeout=20)).revisions
    search = retriever_pb2.SearchRequest(
        collections=["c"], text="a", mode=retriever_pb2.SEARCH_MODE_LEXICAL, limit=1
    )
    assert dict(before) == dict((await stub.Search(search, timeout=20)).revisions)
    deleted = retriever_pb2.DeleteRequest(collection="c", document_ids=["d0"])
    changed = await stub.Delete(deleted, timeout=20)
    after = (await stub.GetIndexRevisions(asked, timeout=20)).revisions
    assert dict(after) == {"c": changed.revision}
    assert after["c"] > before["c"]


async def test_the_reply_says_how_each_collection_was_searched(stub):
    for name in ("c", "other"):
        await fill(stub, name)
    create = retriever_pb2.CreateCollectionRequest(
        name="foreign", embedder=common_pb2.ModelIdentity(id="x", revision="r", dimension=4)
    )
    await stub.CreateCollection(create, timeout=20)
    several = search(collections=["c", "foreign", "other"], limit=9)
    code, _ = await refused(stub.Search(several, timeout=20))
    assert code is grpc.StatusCode.FAILED_PRECONDITION, "a caller who sets no budget wants all"
    several.collection_budget_ms = 5_000
    reply = await stub.Search(several, timeout=20)
    found = {each.collection: each for each in reply.searched}
    assert list(found) == ["c", "foreign", "other"]
    # The second copy of each text is left out as a duplicate.
    assert found["c"].passages + found["other"].passages == len(reply.passages) == 3
    assert found["c"].timing.compute_ns > 0
    assert "come from x at revision r" in found["foreign"].error
    assert set(reply.revisions) == {"c", "other"}
