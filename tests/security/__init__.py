"""The acceptance list of security: what must hold against hostile clients and providers."""
