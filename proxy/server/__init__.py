"""The listening side: sockets, client connections, and the guard in front of everything."""
