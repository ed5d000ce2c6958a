"""What is recorded of exchanges: the log, counters, metrics, traces, and the inspector."""
