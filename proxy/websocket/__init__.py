"""WebSockets: handshake checks, the byte relay, graceful close, frames and messages."""
