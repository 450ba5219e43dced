"""Passages joined with their neighbours: those of the result, and those of the index."""
