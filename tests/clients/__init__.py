"""The providers' own SDKs, unmodified: each knows a dummy key and keyrelay's address, no more.

Run with `make test-clients`; the SDKs live in an environment of their own. Without them every test
here is left out.
"""
