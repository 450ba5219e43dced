"""State shared by gateways through Redis, with a local fallback."""
