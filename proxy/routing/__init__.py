"""From a request to its route, and the rules and limits of that route."""
