"""Who is measured: servers, clients and imports, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OURS = "tornado_ws"
PURE = "tornado_ws, pure Python"
FAST = "tornado_ws, fast deflate"
TORNADO = "tornado.websocket"
WEBSOCKETS = "websockets"
AIOHTTP = "aiohttp"
PICOWS = "picows"
PICOWS_WEBSOCKETS = "picows.websockets"
NODE = "Node ws"
SOCKETIFY = "socketify"
IOSTREAM = "IOStream, no WebSocket"
HTTP_ALONE = "HTTP, no WebSocket"
FLOOR = "C floor"
SOCKETIO = "python-socketio"
CHANNELS = "Channels"

_ALL = frozenset(
    {"echo", "tls", "deflate", "json", "relay", "uvloop", "idle", "churn", "shapes", "pings"}
    | {"broadcast", "bursts", "publish"}
)


#: Its own HTTP server, or the one that the other has in its place.
_HTTP = _ALL | {"http-server"}

#: What comes over Redis; and what else `tornado_ws.Topics` has, which no other has.
_TOPICS = frozenset({"redis", "topics"})


@dataclass(frozen=True)
class BrokerClient:
    """How a library's clients get what is published over a broker.

    ``module`` is one of `benchmarks.servers` and one of `benchmarks.publishers`. A client asks for ``path``, with the
    number of its topic in the place of ``%d``, sends ``greeting`` as a text message unless that is empty, and is
    subscribed when a message comes that begins with ``ready``.
    """

    module: str
    path: str = "/?topic=t%d"
    greeting: str = ""
    ready: str = "ready"


_OURS_OVER_BROKER = BrokerClient("topics")


@dataclass(frozen=True)
class Server:
    """A program that takes the options of `benchmarks.servers.common`.

    ``module`` is one of `benchmarks.servers`, None for what is not Python; ``needs`` are importable names, of which one
    is enough, and ``needs_all`` those that have to be there. It takes part in the rows that need no more than it
    ``can``, and if ``only`` is given in none that does not need that.
    """

    name: str
    module: str | None
    needs: tuple[str, ...] = ()
    needs_all: tuple[str, ...] = ()
    can: frozenset[str] = _ALL
    only: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    compression: str = "{}"
    over_broker: BrokerClient | None = None

    @property
    def ours(self) -> bool:
        return self.name.startswith(OURS)

    @property
    def raw(self) -> bool:
        """Whether it echoes bytes and knows no frames and no handshake."""
        return self.name == IOSTREAM

    @property
    def reference(self) -> bool:
        """Whether it is no WebSocket server that anybody could use."""
        return self.name in (IOSTREAM, HTTP_ALONE, FLOOR)


SERVERS = (
    Server(OURS, "tornado_ws", can=_HTTP | _TOPICS, over_broker=_OURS_OVER_BROKER),
    Server(
        PURE,
        "tornado_ws",
        can=_HTTP | _TOPICS,
        environment={"TORNADO_WS_ENGINE": "python"},
        over_broker=_OURS_OVER_BROKER,
    ),
    Server(FAST, "tornado_ws", ("isal", "zlib_ng"), only="deflate", compression='{"backend": "auto"}'),
    Server(TORNADO, "tornado_websocket", can=_HTTP),
    Server(WEBSOCKETS, "websockets", ("websockets",), can=_ALL - {"pings"}),
    Server(AIOHTTP, "aiohttp", ("aiohttp",), can=_ALL - {"shapes", "pings"}),
    Server(PICOWS, "picows", ("picows",), can=_ALL - {"deflate", "relay", "shapes", "pings"}),
    Server(PICOWS_WEBSOCKETS, "picows_websockets", ("picows",), can=_ALL - {"pings"}),
    Server(SOCKETIFY, "socketify", ("socketify",), can=_ALL - {"relay", "uvloop", "pings"}),
    Server(NODE, None, can=_ALL - {"relay", "uvloop", "shapes", "pings"}),
    Server(IOSTREAM, "iostream", can=frozenset({"echo"})),
    Server(HTTP_ALONE, "http_alone", can=frozenset({"churn", "http-server"})),
    Server(FLOOR, None, can=frozenset({"echo", "broadcast", "publish", "churn", "idle"})),
    Server(
        SOCKETIO,
        None,
        needs_all=("socketio", "uvicorn", "websockets"),
        can=frozenset({"redis"}),
        # Engine.IO's parameters, and the packet that connects to Socket.IO's default namespace, with its answer.
        over_broker=BrokerClient("socketio", "/socket.io/?EIO=4&transport=websocket&topic=t%d", "40", "40"),
    ),
    Server(
        CHANNELS,
        None,
        needs_all=("channels", "channels_redis", "uvicorn", "websockets"),
        can=frozenset({"redis"}),
        over_broker=BrokerClient("channels"),
    ),
)


@dataclass(frozen=True)
class Client:
    """A program that takes the options of `benchmarks.clients.common`. ``style`` is how answers reach the caller."""

    name: str
    module: str
    style: str
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


_PURE_ENGINE = {"TORNADO_WS_ENGINE": "python"}

CLIENTS = (
    Client(OURS, "tornado_ws", "await"),
    Client(PURE, "tornado_ws", "await", environment=_PURE_ENGINE),
    Client(TORNADO, "tornado_websocket", "await"),
    Client(WEBSOCKETS, "websockets", "await", ("websockets",)),
    Client(AIOHTTP, "aiohttp", "await", ("aiohttp",)),
    Client(PICOWS_WEBSOCKETS, "picows_websockets", "await", ("picows",)),
    Client(OURS, "tornado_ws_callback", "callback"),
    Client(PURE, "tornado_ws_callback", "callback", environment=_PURE_ENGINE),
    Client(TORNADO, "tornado_callback", "callback"),
    Client(PICOWS, "picows", "callback", ("picows",)),
)

#: What a server's program has to import, by the name of the server.
IMPORTS = {
    OURS: ("tornado_ws",),
    TORNADO: ("tornado.websocket",),
    WEBSOCKETS: ("websockets.asyncio.server", "websockets.asyncio.client"),
    AIOHTTP: ("aiohttp", "aiohttp.web"),
    PICOWS: ("picows",),
    PICOWS_WEBSOCKETS: ("picows.websockets.asyncio.server", "picows.websockets.asyncio.client"),
}
