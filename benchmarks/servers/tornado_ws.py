"""tornado_ws, in the application of `benchmarks.servers.tornado_websocket`, which does not know of it.

For the broadcast the application has `tornado_ws.broadcast`, as those of `websockets` have their library's, and
`tornado_ws.Topics` with ``--topics``.
"""

from __future__ import annotations

import importlib
from typing import Any

import tornado_ws
from tornado_ws import engine

_ALL = "all"


def subscriber_of(application: Any) -> type[Any]:
    """Return the handler of ``application`` that publishes what it gets to all others, and to itself."""
    topics = tornado_ws.Topics()

    class Subscriber(application.Echo):  # type: ignore[misc]
        async def open(self, *args: str, **kwargs: str) -> None:
            await topics.subscribe(self, _ALL)

        def on_message(self, message: str | bytes) -> None:
            topics.publish(_ALL, message)

    return Subscriber


def main() -> None:
    tornado_ws.install()
    application = importlib.import_module("benchmarks.servers.tornado_websocket")
    application.Broadcast.send_to_all = staticmethod(tornado_ws.broadcast)
    vars(application).update(fast_http_server=tornado_ws.HTTPServer, subscriber=subscriber_of(application))
    application.main(engine=engine.name)


if __name__ == "__main__":
    main()
