"""What all exchanges of a process share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from proxy.observability.exchange_log import ExchangeLog
from proxy.observability.inspector import InspectorHub
from proxy.observability.tracing import Tracer
from proxy.websocket.relay import Relay


@dataclass(frozen=True, slots=True)
class ProxyContext:
    """What an exchange needs that is not its own.

    relays    the open WebSocket sessions
    spawn     starts a task that somebody owns
    watchers  are told what happens, if there are any
    tracer    makes spans; None for no traces
    """

    loop: asyncio.AbstractEventLoop
    exchange_log: ExchangeLog
    relays: set[Relay]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    inspector_hub: InspectorHub
    tracer: Tracer | None = None
