"""`make demo`: a demonstration in which a customer uses a running platform."""
