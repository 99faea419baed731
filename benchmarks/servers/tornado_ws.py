"""tornado_ws, in the application of `benchmarks.servers.tornado_websocket`, which does not know of it.

For the broadcast the application has `tornado_ws.broadcast`, as those of `websockets` have their library's.
"""

from __future__ import annotations

import importlib

import tornado_ws
from tornado_ws import engine


def main() -> None:
    tornado_ws.install()
    application = importlib.import_module("benchmarks.servers.tornado_websocket")
    application.Broadcast.send_to_all = staticmethod(tornado_ws.broadcast)
    vars(application)["fast_http_server"] = tornado_ws.HTTPServer
    application.main(engine=engine.name)


if __name__ == "__main__":
    main()
