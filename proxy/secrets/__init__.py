"""Secret values: their sources, sealing, and redaction."""
