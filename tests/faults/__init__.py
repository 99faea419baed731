"""System calls and allocations that fail, one after the other, and what has to hold after each."""
