"""What keyrelay costs: measurements against stub providers on loopback. Run them with `-m`."""
