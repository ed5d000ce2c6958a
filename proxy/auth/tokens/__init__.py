"""Where tokens come from: one module per token type, and the client that calls their endpoints."""
