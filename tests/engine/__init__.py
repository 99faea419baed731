"""The sans-I/O engine: every test of frames runs over every implementation of them."""
