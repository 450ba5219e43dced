"""History of benchmark runs, and their comparison: `python -m history`."""
