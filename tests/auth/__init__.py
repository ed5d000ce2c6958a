"""The tests of ``proxy.auth``."""
