"""Standing in for `tornado.websocket` in a program that imports it."""
