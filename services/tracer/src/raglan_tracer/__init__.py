"""Traces: which are kept, how their spans come together, and where they are stored."""
