"""What ``exec --intercept`` adds to a command's environment, and what it starts for it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.app.app import App
from proxy.app.intercept import origins_of
from proxy.errors import ConfigValueError, KeyrelayError
from proxy.process.intercept import InterceptingProxy
from proxy.secrets import private_file
from proxy.upstream.authorities import read_authorities, system_authorities

PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "WSS_PROXY", "wss_proxy")
TRUST_VARIABLES = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    *("AWS_CA_BUNDLE", "DENO_CERT", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "PIP_CERT"),
    *("WEBSOCKET_CLIENT_CA_BUNDLE", "CARGO_HTTP_CAINFO", "GIT_SSL_CAINFO"),
)
"""Variables by which clients trust a file, most of them in place of the system's authorities."""

# The authority lives as long as the command; this bounds it if a copy were kept.
_DAYS = 30.0


@asynccontextmanager
async def intercepting(app: App, environment: Mapping[str, str]) -> AsyncIterator[dict[str, str]]:
    """Run the proxy. Yields the variables for the command.

    Raises KeyrelayError if the command already has an HTTPS proxy, or no route's provider has TLS.
    """
    if any(environment.get(name) for name in ("HTTPS_PROXY", "https_proxy")):
        raise KeyrelayError(
            "--intercept cannot be used behind HTTPS_PROXY: other hosts would no longer be reached "
            "through it; unset it, and write --egress-proxy for the providers"
        )
    from proxy.secrets.certificates import new_authority

    now = time.time()
    hosts = sorted({host for host, _ in origins_of(app.routes)})
    if not hosts:
        raise KeyrelayError("--intercept needs a route that is ready, with an https upstream")
    authority = new_authority("keyrelay exec", hosts, now, _DAYS)
    intercepted = app.intercept(lambda names: authority.issue(names, now, _DAYS))
    with tempfile.TemporaryDirectory(prefix="keyrelay-") as folder:
        bundle = Path(folder) / "authorities.pem"
        private_file.create(bundle, authority.certificate + _trusted(environment).encode("ascii"))
        async with InterceptingProxy(intercepted.origins, intercepted.serve) as proxy:
            yield {
                **dict.fromkeys(PROXY_VARIABLES, proxy.url),
                **dict.fromkeys(TRUST_VARIABLES, str(bundle)),
                "NODE_USE_ENV_PROXY": "1",
                # Others would keep the routes' hosts from the proxy.
                **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost,::1"),
            }


def _trusted(environment: Mapping[str, str]) -> str:
    """What the command's clients would trust without ``--intercept``, in PEM. Blocking."""
    found = {system_authorities(): None}
    for name in TRUST_VARIABLES:
        if path := environment.get(name):
            try:
                found[read_authorities(Path(path))] = None
            except ConfigValueError as error:
                raise KeyrelayError(f"{name}: {error}") from None
    return "".join(found)
