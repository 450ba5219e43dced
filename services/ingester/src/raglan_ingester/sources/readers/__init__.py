"""Readers, one a kind of source."""
