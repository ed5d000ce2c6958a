"""Keyrelay: an authenticating reverse proxy.

Client code calls a URL on localhost and holds no credential. Keyrelay selects the route of a
request in the YAML configuration, adds the route's credential and streams the response back, for
HTTP and WebSocket.

CONTRIBUTING.md has the map of the packages, the life of a request and the terms. The module to
start with is ``forwarding.handler``.
"""

__version__ = "0.1.0"
