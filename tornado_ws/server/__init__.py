"""The server: the handler that applications subclass, and closing all connections."""
