"""Outbound credentials only: what a strategy is, and how each kind comes by its credential."""
