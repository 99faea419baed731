"""One message to many connections."""
