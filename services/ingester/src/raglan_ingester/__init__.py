"""Documents to chunks to index, as durable jobs."""
