"""Shared by embedder and reranker: models, tokenizers, sessions and the batch queue.

Nothing here imports torch unless the torch engine, or the export of a model that ships no ONNX
file, asks for it.
"""
