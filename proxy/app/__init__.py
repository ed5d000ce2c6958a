"""A configuration in force: listeners, route services, reload and status."""
