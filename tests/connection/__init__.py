"""Open connections over real sockets: the library at one end, bytes made by hand at the other."""
