"""The sync client, made of the async one by `make client`."""
