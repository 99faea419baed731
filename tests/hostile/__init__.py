"""What hostile peers cost a server: bytes of memory, and how long another client waits.

`attacks` has each attack as what a client sends, `server` is the program that is attacked, in a process of its own, and
`measure` talks to it. ``python -m tests.hostile`` prints the table of docs/security.md, and `test_bounds` holds each
attack to its bounds.
"""
