"""Connections to providers: dialled, kept, ready ahead of need."""
