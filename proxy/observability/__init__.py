"""Observability of exchanges: access log, counters, metrics, traces, and the live inspector."""
