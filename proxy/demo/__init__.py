"""The built-in provider, to try everything without a key. ``provider`` starts it."""
