"""What hostile peers cost a server or a client: bytes of memory, and how long another connection waits.

`from_clients` and `from_servers` have each attack as what a peer sends, `server` and `client` are the programs that are
attacked, each in a process of its own (`meter` is what they measure with), and `measure` talks to them.
``python -m tests.hostile`` prints the tables of docs/security.md, and `test_bounds` holds each attack to its bounds.
"""
