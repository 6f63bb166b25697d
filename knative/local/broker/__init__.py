"""A broker for one machine that behaves like Knative's: durable storage, filters, retries and dead letters.

To run it as a process: `python -m knative.local.broker --config FILE`. To run it inside another process (tests):
`knative.local.broker.app.BrokerApp`, an ASGI application with `start()` and `stop()`.
"""
