"""HTTP/1.1 without I/O: requests, responses, header fields, problems, addresses, patterns."""
