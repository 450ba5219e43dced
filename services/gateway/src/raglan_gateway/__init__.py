"""REST in, the query pipeline, answers out."""
