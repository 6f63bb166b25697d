"""A customer's story against a running platform: `make demo`."""
