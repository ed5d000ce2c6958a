"""What the Python authorization servers of the tests have in common: the start, and the counting.

They listen as harness.js does: one JSON argument, ``ready PORT`` on stdout, ``/api/…`` protected by
the server's own means, ``/control/…`` for a test to arrange things, ``/~NAME/…`` to have calls
counted under a name.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import waitress.server

Start = Callable[..., Any]
Application = Callable[[dict[str, Any], Start], Iterable[bytes]]

settings: dict[str, Any] = {
    "port": 0,
    "lifetime": 4,
    **json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"),
}


def serve(application: Application, control: dict[str, Callable[..., Any]]) -> None:
    """Serve until killed. ``control`` has a function for each ``/control/NAME``."""
    calls: Counter[str] = Counter()

    def whole(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith("/~"):
            name, _, rest = path.removeprefix("/~").partition("/")
            calls[name] += 1
            environ = {**environ, "SCRIPT_NAME": f"/~{name}", "PATH_INFO": f"/{rest}"}
            path = environ["PATH_INFO"]
        if not path.startswith("/control/"):
            return application(environ, start)
        if path == "/control/calls":
            found: Any = calls
        else:
            body = json.loads(environ["wsgi.input"].read() or b"{}")
            found = control[path.removeprefix("/control/")](**body) or {}
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(found).encode()]

    server = waitress.server.create_server(
        whole, host="127.0.0.1", port=settings["port"], threads=8
    )
    sys.stdout.write(f"ready {server.effective_port}\n")
    sys.stdout.flush()
    server.run()
