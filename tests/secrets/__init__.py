"""The tests of ``proxy.secrets``."""
