"""The same job for mitmproxy. Runs in mitmproxy's own environment and imports nothing of ours."""

import os

ORIGINS = dict(one.split("=", 1) for one in os.environ["BENCH_ORIGINS"].split())


def requestheaders(flow) -> None:  # type: ignore[no-untyped-def]
    """Strip the prefix, lead to its provider, add the key; bodies are streamed."""
    _, name, rest = flow.request.path.split("/", 2)
    scheme, _, where = ORIGINS[name].partition("://")
    host, _, port = where.partition(":")
    flow.request.scheme, flow.request.host, flow.request.port = scheme, host, int(port)
    flow.request.path = "/" + rest
    flow.request.headers["X-Api-Key"] = "dummy-key"
    flow.request.stream = True


def responseheaders(flow) -> None:  # type: ignore[no-untyped-def]
    flow.response.stream = True
