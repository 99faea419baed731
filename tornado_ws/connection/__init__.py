"""One WebSocket connection, of a server or a client."""
