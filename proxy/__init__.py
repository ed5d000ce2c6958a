"""Keyrelay: an authenticating reverse proxy.

Client code calls a URL on localhost and holds no credential; keyrelay looks up the provider in
YAML routes, attaches the right credential and streams the answer back, for HTTP and WebSocket.

Words, one for one thing, in code, configuration, messages and documents:

route       a place on the proxy (``/hume``, or a listener of its own) bound to one provider's
            origin, with its rules
provider    a YAML file that says how an API authenticates: its *preset*
secret      a value from a source (``env:``, ``file:`` …); never printed
credential  what the provider gets: a secret as it is, or a *token* made from secrets
placement   where the credential goes: header, query parameter, path segment, cookie
strategy    one way a provider authenticates: credential, placement for HTTP, placement for
            WebSocket, and the paths it serves
guard       the checks on who asks. Inbound only
auth        attaching credentials to what leaves. Outbound only
outgoing    the request as the provider will see it
exchange    one request and its answer, or one WebSocket session, as the journal notes it

Reading order, which is the way of a request: ``gateway`` (read it first), ``door``, ``guard``,
``routes``, ``outgoing``, ``auth.base``, ``forward``, ``upstream.pool`` and ``upstream.connection``,
``crossing``, ``session`` and ``websocket.relay``, ``journal``; then credentials that expire:
``auth.fresh``, ``auth.tokens``; then how it is put together: ``settings``, ``loader``,
``compiling``, ``service``, ``services``, ``places``, ``app``, ``reloading``, ``serving``, ``cli``.

Beside that way stand packages: ``sources`` (where secrets come from; ``sealing`` beside it),
``observing`` (what is counted and shown of exchanges), ``admin`` (the inspector and what else is
asked of a running keyrelay), ``workers`` (several processes), ``doctor`` and ``commands``.
"""

__version__ = "0.1.0"
