"""What `/metrics` tells, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kindling_serve.engine import GenerationEngine

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class ServeMetrics:
    """The figures of one server."""

    def __init__(self, engines: Sequence[GenerationEngine]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "kindling_serve_requests", "Answered requests.", ["route", "status"], registry=self.registry
        )
        self.prompt_tokens = Counter("kindling_serve_prompt_tokens", "Tokens read.", registry=self.registry)
        self.tokens = Counter("kindling_serve_tokens", "Tokens generated.", registry=self.registry)
        self.first_token = Histogram(
            "kindling_serve_first_token_seconds",
            "From a request to its first token.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "kindling_serve_request_seconds",
            "From a request to the end of its answer.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        active = Gauge("kindling_serve_active", "Texts that are being continued.", registry=self.registry)
        active.set_function(lambda: sum(len(engine.active) for engine in engines))
        waiting = Gauge("kindling_serve_waiting", "Texts that wait for a slot.", registry=self.registry)
        waiting.set_function(lambda: sum(len(engine.waiting) for engine in engines))
