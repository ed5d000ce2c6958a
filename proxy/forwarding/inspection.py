"""Captures for the inspector: server-sent events of a response, messages of a WebSocket session."""

from __future__ import annotations

from proxy.http.response import ResponseHead
from proxy.observability.capture import EventStreamCapture
from proxy.observability.exchange_log import ExchangeRecord
from proxy.observability.inspector import InspectorHub
from proxy.secrets.redaction import Redactor
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
