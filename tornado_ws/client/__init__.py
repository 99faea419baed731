"""The client: connecting, the HTTP request up to the 101, reading messages, connecting again."""
