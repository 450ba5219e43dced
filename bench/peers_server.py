"""Haystack's hybrid retrieval behind FastAPI, which a user would write instead of the mesh.

Runs in `.venv-peers`, as `bench/peers.py` starts it:

    python bench/peers_server.py MODEL CORPUS VECTORS PORT

VECTORS is a file for the vectors of the corpus, which take minutes; made if it is not there.

`POST /memory/search` searches Haystack's in-memory store, `POST /qdrant/search` Qdrant's local mode
for vectors. Words are searched by Haystack's BM25 in both: Qdrant's needs a model that is not
downloaded here. Both fuse by the distribution of scores.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from haystack import Document, Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import (
    InMemoryBM25Retriever,
    InMemoryEmbeddingRetriever,
)
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)
from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from pydantic import BaseModel

CANDIDATES = 50
"""Documents that each leg gives the joiner; with Haystack's default of 10, nDCG@10 is lower."""


class Search(BaseModel):
    """A request, named as the mesh names its own."""

    query: str
    top_k: int = 10


def main(model: str, corpus: Path, vectors: Path, port: int, folder: Path) -> None:
    """Index `corpus` in both stores, then serve."""
    rows = [json.loads(line) for line in corpus.open(encoding="utf-8")]
    documents = [
        Document(id=row["_id"], content=f"{row['title']}\n{row['text']}", meta={"id": row["_id"]})
        for row in rows
        if row["text"].strip()
    ]
    for document, row in zip(documents, embeddings(model, documents, vectors), strict=True):
        document.embedding = row
    memory = InMemoryDocumentStore(embedding_similarity_function="cosine")
    memory.write_documents(documents)
    qdrant = QdrantDocumentStore(
        path=str(folder),
        embedding_dim=384,
        progress_bar=False,
        force_disable_check_same_thread=True,
    )
    qdrant.write_documents(documents)
    pipelines = {
        "memory": pipeline(
            model, memory, InMemoryEmbeddingRetriever(document_store=memory, top_k=CANDIDATES)
        ),
        "qdrant": pipeline(
            model, memory, QdrantEmbeddingRetriever(document_store=qdrant, top_k=CANDIDATES)
        ),
    }
    uvicorn.run(app(pipelines), host="127.0.0.1", port=port, log_level="warning")


def embeddings(model: str, documents: list[Document], path: Path) -> list[list[float]]:
    """Vectors of `documents`, from `path` or written to it."""
    if not path.exists():
        embedder = SentenceTransformersDocumentEmbedder(
            model=model, progress_bar=False, normalize_embeddings=True
        )
        embedder.warm_up()
        made = embedder.run(documents)["documents"]
        with path.open("wb") as file:
            np.save(file, np.array([each.embedding for each in made], np.float32))
    found: list[list[float]] = np.load(path).tolist()
    return found


def pipeline(model: str, words: InMemoryDocumentStore, vectors: Any) -> Pipeline:
    """Embed the question, search both legs, join."""
    made = Pipeline()
    made.add_component(
        "embedder",
        SentenceTransformersTextEmbedder(
            model=model, progress_bar=False, normalize_embeddings=True
        ),
    )
    made.add_component("vectors", vectors)
    made.add_component("words", InMemoryBM25Retriever(document_store=words, top_k=CANDIDATES))
    made.add_component(
        "joiner", DocumentJoiner(join_mode="distribution_based_rank_fusion", top_k=10)
    )
    made.connect("embedder.embedding", "vectors.query_embedding")
    made.connect("vectors.documents", "joiner.documents")
    made.connect("words.documents", "joiner.documents")
    made.warm_up()
    return made


def app(pipelines: dict[str, Pipeline]) -> FastAPI:
    """The API over `pipelines`, by the name of their store."""
    api = FastAPI()

    @api.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    # A plain function: FastAPI runs it in its pool of threads, as its documentation advises.
    @api.post("/{store}/search")
    def search(store: str, body: Search) -> dict[str, Any]:
        found = pipelines[store].run(
            {
                "embedder": {"text": body.query},
                "words": {"query": body.query},
                "joiner": {"top_k": body.top_k},
            }
        )["joiner"]["documents"]
        return {
            "passages": [
                {"document_id": each.meta["id"], "text": each.content, "score": each.score}
                for each in found
            ]
        }

    return api


if __name__ == "__main__":
    os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as store:
        main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), Path(store))
