"""The dead-letter sink: stores events that could not be delivered, lists them, and replays them.

On one machine it is part of the broker's process, under /dead-letters. In a cluster it is a separate service,
`python -m events.dead_letters`.
"""
