"""The command line: ``python -m tornado_ws COMMAND`` and ``tornado-ws COMMAND``. It stands on the public API."""
