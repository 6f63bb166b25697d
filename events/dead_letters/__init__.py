"""The dead-letter sink: keeps the events that nobody took, shows them, and replays them.

On one machine it lives in the broker's process under /dead-letters; in a cluster it is a service of its own,
`python -m events.dead_letters`.
"""
