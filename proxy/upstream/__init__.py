"""Connections to providers: dialling, pooling, prewarming."""
