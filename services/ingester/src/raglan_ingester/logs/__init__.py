"""Logs: formats, entries, templates and chunks of whole entries."""
