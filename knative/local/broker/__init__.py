"""Knative's Broker and Trigger semantics for one machine: durable, filtered, retried, dead-lettered.

As a process: `python -m knative.local.broker --config FILE`. Inside another process (tests):
`knative.local.broker.app.BrokerApp`, an ASGI application with `start()` and `stop()`.
"""
