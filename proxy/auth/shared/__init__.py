"""Tokens that several keyrelays share through Redis."""
