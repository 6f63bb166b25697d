"""Knative's Broker and Trigger semantics for one machine: durable, filtered, retried, dead-lettered.

In a process of its own: `python -m knative.local.broker --config FILE`. Inside another one (tests):
`knative.local.broker.app.BrokerApp`, an ASGI application with `start()` and `stop()`.
"""
