"""What moves the bytes of a connection: the socket taken over from an IOStream, and which sockets are ready."""
