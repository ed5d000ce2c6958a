"""The tests of ``proxy.sources``."""
