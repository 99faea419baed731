"""Load over loopback with numbered messages, and connections that end in every way: ``python -m soak``, `make soak`.

Each connection has a plan, which follows from a seed and its number. Both of its ends know the plan, so each of them
knows which message comes next, and how the connection ends. Three processes take part: a server of ours, clients of
ours, and peers made by hand of the one and the other.
"""
