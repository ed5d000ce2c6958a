"""One exchange, from the request to the end of the response. Read `handler` first."""
