"""What sets a development cluster up, as Jobs of the overlay: keys, the first administrator, the demo catalogue."""
