"""The index: collections, upserts, hybrid search."""
