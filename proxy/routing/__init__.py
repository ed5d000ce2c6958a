"""Routes: finding the route of a request, its rules and its limits."""
