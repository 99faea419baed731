"""Programs that publish to a broker, each with the library of the servers that get it."""
