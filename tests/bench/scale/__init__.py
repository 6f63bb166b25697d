"""`make bench-scale`: measures the same use cases on a small and a large store in turn, to find the cost of growth."""
