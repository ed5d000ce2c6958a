"""What the inspector records of an exchange: messages and events, and what was done for it.

The functions named ``note_`` are called while the inspector has subscribers only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

from proxy.auth.credential import Credential
from proxy.auth.injection import Injection
from proxy.forwarding.upstream_request import UpstreamRequest
from proxy.http.request import Request
from proxy.http.response import ResponseHead
from proxy.observability.capture import EventStreamCapture
from proxy.observability.exchange_detail import ExchangeDetail, UsedSecret, shown_fields
from proxy.observability.exchange_log import ExchangeRecord
from proxy.observability.inspector import InspectorHub
from proxy.routing.route import Route
from proxy.secrets.redaction import Redactor
from proxy.upstream.connection import UpstreamConnection
from proxy.websocket.relay import Tap


def capture_events(
    hub: InspectorHub, record: ExchangeRecord, head: ResponseHead, body: bytes, redactor: Redactor
) -> EventStreamCapture | None:
    """Notify subscribers of a response; the capture of its events, None for any other body.

    ``body`` is the part of the body that arrived with the head.
    """
    hub.response_started(record)
    events = hub.stream(record, head, redactor)
    if events is not None:
        events.feed(body)
    return events


def capture_session(
    hub: InspectorHub, record: ExchangeRecord, head: ResponseHead, redactor: Redactor
) -> Tap | None:
    """Notify subscribers of a WebSocket session; the tap for its relay. None without subscribers.

    ``head`` is the 101 response, which has the negotiated extensions.
    """
    if not hub.active:
        return None
    hub.response_started(record)
    extensions = b", ".join(head.values(b"sec-websocket-extensions"))
    return hub.tap(record, extensions, redactor)


def note_connection(detail: ExchangeDetail, connection: UpstreamConnection | None) -> None:
    """Record on which connection the request is sent; None for one that is to be opened."""
    if connection is None:
        detail.connection = "new"
        detail.dial.start()
    else:
        detail.connection = "spare" if connection.fresh else "kept"


def note_request(
    record: ExchangeRecord,
    request: Request,
    upstream_request: UpstreamRequest,
    route: Route,
    credential: Credential,
    injection: Injection,
) -> None:
    """Record what is sent to the provider now, and what is not."""
    detail = record.detail
    assert detail is not None
    path, query, fields = upstream_request.forwarded
    forwarded = list(_fields(fields))
    kept = {name.lower() for name, _ in forwarded} | {b"host"}
    removed = [name for name, _ in request.raw_headers if name.lower() not in kept]
    names = _query_names(query)
    lost = [one for one in _query_names(request.query) if one not in names]
    detail.removed = (
        *(_text(one) for one in dict.fromkeys(removed)),
        *(f"query {_text(one)}" for one in dict.fromkeys(lost)),
        *("an offered subprotocol" for _ in upstream_request.withheld_subprotocols),
    )
    # The path of a credential in one is not shown, however short it is.
    segment = b"/(credential)" if injection.path else b""
    target = b"%b%b%b" % (route.rules.base_path, segment, path)
    shown = injection.redactor.redact(target or b"/").decode("latin-1")
    if names:
        shown += "?" + "&".join(f"{_text(one)}=…" for one in names)
    detail.target = f"{route.origin}{shown}"
    detail.request_fields = shown_fields(forwarded)
    detail.placements = tuple(_placements(injection))
    detail.secrets = tuple(
        UsedSecret(one.name, one.reference, one.fingerprint)
        for one in credential.sources(injection)
    )
    detail.token = _token(credential)
    detail.sent()


def note_response(detail: ExchangeDetail, head: ResponseHead) -> None:
    """Record the provider's response."""
    detail.responded()
    detail.response_fields = shown_fields(_fields(head.fields))


def note_replay(detail: ExchangeDetail, status: int) -> None:
    """Record that the request is sent again with another credential, or proof of it."""
    detail.steps.append(
        f"The provider refused the credential ({status}); the request was sent again."
    )


def note_unread(detail: ExchangeDetail) -> None:
    """Record that the request is sent again on another connection."""
    detail.responded()
    detail.steps.append(
        "The kept connection was closed before the request was read; it was sent again on another."
    )


def _token(credential: Credential) -> str:
    """Describe the token of a credential, "" if it has none."""
    state = credential.state()
    if state is None or state.token is None or state.token.age_seconds is None:
        return ""
    return f"{state.token.age_seconds:.0f} s old"


def _fields(lines: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in lines.split(b"\n"):
        name, colon, value = line.rstrip(b"\r").partition(b":")
        if colon:
            yield name, value


def _query_names(query: bytes | None) -> list[bytes]:
    parts = (query or b"").split(b"&")
    return [unquote_to_bytes(one.partition(b"=")[0].replace(b"+", b" ")) for one in parts if one]


def _placements(injection: Injection) -> Iterable[str]:
    """Yield where the injection places its credential; names only."""
    for name, value in _fields(injection.headers):
        if name.lower() == b"cookie":
            for pair in value.split(b";"):
                yield f"cookie {_text(pair.partition(b'=')[0].strip())}"
        else:
            yield f"header {_text(name)}"
    for name in _query_names(injection.query):
        yield f"query {_text(name)}"
    if injection.path:
        yield "path"
    if injection.proof is not None:
        yield "header DPoP"
    if injection.message is not None:
        yield "a message of the WebSocket"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")[:100]
