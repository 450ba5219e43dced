"""Traces: how a request ended, reported to the tracer."""
