"""Hosts whose links fail, as network namespaces of this machine (``make test-net``)."""
