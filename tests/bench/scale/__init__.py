"""`make bench-scale`: the same use cases over a small and a large store, in turn; what growth costs."""
