"""New services from a template (`make new-service NAME=...`), and their removal."""
