"""tornado_ws, in the application of `benchmarks.servers.tornado_websocket`, which does not know of it."""

from __future__ import annotations

import importlib

import tornado_ws
from tornado_ws import engine


def main() -> None:
    tornado_ws.install()
    importlib.import_module("benchmarks.servers.tornado_websocket").main(engine=engine.name)


if __name__ == "__main__":
    main()
