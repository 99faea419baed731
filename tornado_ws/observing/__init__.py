"""What can be seen from outside: counters, round trip times, records of the log."""
