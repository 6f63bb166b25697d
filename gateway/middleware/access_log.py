"""The access line and the metric of each request."""

from __future__ import annotations

import logging
from time import perf_counter

from gateway.middleware.request_context import RequestContext
from observability import metrics

log = logging.getLogger("shop.gateway")


class AccessLog:
    """Writes them; with `everything` false only the lines of failures."""

    def __init__(self, everything: bool) -> None:
        self._everything = everything
        self._observed: dict[tuple[str, str, int], metrics.Observed] = {}

    def write(self, start: float, method: str, request_context: RequestContext) -> None:
        """At the end of a request that began at `start` (of perf_counter)."""
        took = perf_counter() - start
        status = request_context.status or 499  # nothing was answered: the client had gone
        if not request_context.streaming:  # a stream's length says nothing about speed
            self._observe(method, request_context.route, status, took)
        if (self._everything or status >= 400) and log.isEnabledFor(logging.INFO):
            extra = {
                "method": method,
                "route": request_context.route,
                "status": status,
                "duration_ms": round(took * 1000, 3),
            }
            if request_context.reason:
                extra["reason"] = request_context.reason
            if request_context.subject:
                extra["user_id"] = request_context.subject
            log.log(logging.ERROR if status >= 500 else logging.INFO, "request", extra=extra)

    def _observe(self, method: str, route: str, status: int, seconds: float) -> None:
        # Methods are bounded here and routes are templates, so the labels are bounded, too.
        key = (method if method in METHODS else "OTHER", route, status)
        observed = self._observed.get(key)
        if observed is None:
            labels = ("gateway", key[0], route, str(status))
            observed = self._observed[key] = metrics.Observed(metrics.HTTP, *labels)
        observed.observe(seconds)


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
