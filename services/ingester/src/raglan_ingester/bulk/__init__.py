"""Ingestion on many machines: documents are cut and embedded by the workers of a Ray cluster."""
