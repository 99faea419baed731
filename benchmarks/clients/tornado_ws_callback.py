"""tornado_ws, in the program of `benchmarks.clients.tornado_callback`."""

from __future__ import annotations

import importlib

import tornado_ws

if __name__ == "__main__":
    tornado_ws.install()
    importlib.import_module("benchmarks.clients.tornado_callback").main()
