"""The services that the ingester calls, as its domain sees them."""
