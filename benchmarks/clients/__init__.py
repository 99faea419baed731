"""The clients under test, each a program of its own that asks one same server, one question at a time."""
