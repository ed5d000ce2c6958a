"""What is counted, shown and traced of exchanges. Never a secret, never a body unless watched."""
