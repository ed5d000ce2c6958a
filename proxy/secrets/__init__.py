"""Secret values: where they come from, how they are sealed, and how they are redacted."""
