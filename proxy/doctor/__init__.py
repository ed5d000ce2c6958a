"""Trying routes step by step, with the server's own code."""
