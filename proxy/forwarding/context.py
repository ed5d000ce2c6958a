"""Objects shared by all exchanges of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from proxy.observability.exchange_log import ExchangeLog
from proxy.observability.inspector import InspectorHub
from proxy.observability.notices import Notices
from proxy.observability.tracing import Tracer
from proxy.websocket.relay import Relay


@dataclass(frozen=True, slots=True)
class ProxyContext:
    """Shared dependencies of an exchange.

    exchange_log   records every exchange
    relays         the open WebSocket sessions
    spawn          starts a task that the application owns and cancels on shutdown
    inspector_hub  notified of events while the inspector has subscribers
    tracer         creates spans; None without tracing
    notices        lines for the operator about refused requests; None for none
    own_ports      the ports on which this process listens
    """

    loop: asyncio.AbstractEventLoop
    exchange_log: ExchangeLog
    relays: set[Relay]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    inspector_hub: InspectorHub
    tracer: Tracer | None = None
    notices: Notices | None = None
    own_ports: Callable[[], Collection[int]] = tuple
