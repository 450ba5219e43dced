"""The async client, from which `make client` makes the sync one."""
