"""Caches of queries: vectors, ranked passages and answers, none of which is ever given out stale.

| layer | value | key besides tenant and question | lifetime |
|---|---|---|---|
| embedding | the query's vector | the embedder | 60 min |
| evidence | the ranked passages | revisions of the collections, embedder, reranker | 30 min |
| answer | the events of the generator | the same, and the generator and the sampling | 15 min |
| semantic | the key of an answer | the same, and the vector instead of the question | off |

A revision belongs to one state of a collection, so nothing is ever invalidated: each lookup asks
the retriever for the present revisions, and what was made at others has another key.
"""
