"""WebSockets after the handshake: bytes move, and at the end both sides are told."""
