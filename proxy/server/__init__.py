"""The listening side: sockets, client connections, and the guard that admits requests."""
