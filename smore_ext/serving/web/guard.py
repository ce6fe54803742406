"""What stands before every answer: a bound on bodies, a token, counts and times."""

from __future__ import annotations

import secrets
import time
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smore_ext.serving.web.answers import BODY
from smore_ext.serving.web.live import Live

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_bearer = HTTPBearer(auto_error=False, description="the token that the server was started with")


class Token:
    """A dependency that lets requests pass which carry the token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def __call__(self, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
        if given is None or not secrets.compare_digest(given.credentials.encode(), self._token):
            raise HTTPException(401, "expected the server's token as a bearer", {"WWW-Authenticate": "Bearer"})


class Metrics:
    """Counts in Prometheus' form, of one server."""

    def __init__(self, live: Live) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("smore_requests", "Answers", ["route", "status"], registry=self.registry)
        bounds = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
        self.seconds = Histogram(
            "smore_request_seconds", "Time to the answer", ["route"], registry=self.registry, buckets=bounds
        )
        for name, text, value in (
            ("smore_model_loaded_timestamp_seconds", "When the model came", lambda: live.now.at),
            ("smore_model_changes", "Models that took over", lambda: live.changes),
            ("smore_model_load_failures", "Files that could not be loaded", lambda: live.failures),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)


class Guard:
    """Bounds bodies, adds headers, and counts. Around the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, got, status = time.perf_counter(), 0, 500

        async def bounded() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > BODY:
                raise HTTPException(413, f"expected a body of at most {BODY:,} bytes")
            return message

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        try:
            await self.app(scope, bounded, marked)
        finally:
            route = getattr(scope.get("route"), "path", "none")  # not the path: that would be a row an id
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - begin)
