"""Where chunks and vectors live: one adapter a file, one protocol."""
