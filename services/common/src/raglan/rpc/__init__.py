"""gRPC as every service uses it: one way to serve, one way to call."""
