"""Jobs of the overlay that set up a development cluster: keys, the first administrator and the demo catalogue."""
