"""The dead-letter sink: keep events that could not be delivered, list them, and replay them.

On one machine it is part of the broker's process, under /dead-letters. In a cluster it is a service of its own,
`python -m events.dead_letters`.
"""
