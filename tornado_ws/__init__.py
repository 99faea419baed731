"""A drop-in replacement for `tornado.websocket`: RFC 6455 and RFC 7692 to the letter, and many times faster.

Either ``import tornado_ws as websocket`` where an application imports ``tornado.websocket``, or call `install` before
its imports, so that ``tornado.websocket`` itself is this module for every package of the process.
"""

import importlib
from typing import TYPE_CHECKING

from tornado import gen as gen
from tornado import httpclient as httpclient
from tornado import httputil as httputil
from tornado.concurrent import Future as Future
from tornado.concurrent import future_add_done_callback as future_add_done_callback
from tornado.concurrent import future_set_result_unless_cancelled as future_set_result_unless_cancelled
from tornado.escape import native_str as native_str
from tornado.escape import to_unicode as to_unicode
from tornado.escape import utf8 as utf8
from tornado.ioloop import IOLoop as IOLoop
from tornado.iostream import IOStream as IOStream
from tornado.iostream import StreamClosedError as StreamClosedError
from tornado.log import app_log as app_log
from tornado.log import gen_log as gen_log
from tornado.netutil import Resolver as Resolver
from tornado.util import _websocket_mask as _websocket_mask

from tornado_ws import engine as engine
from tornado_ws.connection import interfaces as _interfaces
from tornado_ws.connection.interfaces import WebSocketProtocol
from tornado_ws.connection.keepalive import de_dupe_gen_log as de_dupe_gen_log
from tornado_ws.connection.protocol13 import WebSocketProtocol13
from tornado_ws.deflate import codec as _codec
from tornado_ws.errors import (
    BrokerError,
    HandshakeError,
    HandshakeRejectedError,
    InvalidHandshakeError,
    ProxyError,
    PublishError,
    RedirectError,
    SubscriptionLimitError,
    TopicGapError,
    TopicNameError,
    WebSocketClosedError,
    WebSocketError,
    WriteLimitError,
)
from tornado_ws.observing.latency import Latency
from tornado_ws.server import handler as _handler
from tornado_ws.server.handler import WebSocketHandler

# Tornado's own names for them, which applications import.
_DecompressTooLargeError = _codec.DecompressTooLargeError
_PerMessageDeflateCompressor = _codec.PerMessageDeflateCompressor
_PerMessageDeflateDecompressor = _codec.PerMessageDeflateDecompressor
_WebSocketDelegate = _interfaces.WebSocketDelegate
_WebSocketParams = _interfaces.WebSocketParams
_default_max_message_size = _interfaces.DEFAULT_MAX_MESSAGE_SIZE
_raise_not_supported_for_websockets = _handler.raise_not_supported_for_websockets

#: Names that many programs never ask for, and their modules: imported for who does.
_LATE = {
    "ClosedAll": "tornado_ws.server.shutdown",
    "ConnectionFilter": "tornado_ws.observing.logs",
    "Counters": "tornado_ws.observing.counters",
    "Envelope": "tornado_ws.envelope",
    "HTTPServer": "tornado_ws.server.http",
    "History": "tornado_ws.pubsub.history",
    "MessageStream": "tornado_ws.connection.message_stream",
    "Position": "tornado_ws.pubsub.messages",
    "ProcessCounters": "tornado_ws.observing.counters",
    "Queue": "tornado.queues",
    "Resume": "tornado_ws.client.resume",
    "ResumedConnection": "tornado_ws.client.resume",
    "Subscription": "tornado_ws.pubsub.subscriptions",
    "TCPClient": "tornado.tcpclient",
    "Topics": "tornado_ws.pubsub.topics",
    "WebSocketClientConnection": "tornado_ws.client.connection",
    "WriteStream": "tornado_ws.connection.write_stream",
    "broadcast": "tornado_ws.pubsub.broadcast",
    "check_settings": "tornado_ws.server.settings",
    "close_all": "tornado_ws.server.shutdown",
    "counters": "tornado_ws.observing.counters",
    "install": "tornado_ws.compat.install",
    "reconnect": "tornado_ws.client.reconnect",
    "simple_httpclient": "tornado_ws.client.connection",
    "uninstall": "tornado_ws.compat.install",
    "websocket_connect": "tornado_ws.client.connect",
}

if TYPE_CHECKING:
    from tornado import simple_httpclient as simple_httpclient
    from tornado.queues import Queue as Queue
    from tornado.tcpclient import TCPClient as TCPClient

    from tornado_ws.client.connect import websocket_connect
    from tornado_ws.client.connection import WebSocketClientConnection
    from tornado_ws.client.reconnect import reconnect
    from tornado_ws.client.resume import Resume, ResumedConnection
    from tornado_ws.compat.install import install, uninstall
    from tornado_ws.connection.message_stream import MessageStream
    from tornado_ws.connection.write_stream import WriteStream
    from tornado_ws.envelope import Envelope
    from tornado_ws.observing.counters import Counters, ProcessCounters, counters
    from tornado_ws.observing.logs import ConnectionFilter
    from tornado_ws.pubsub.broadcast import broadcast
    from tornado_ws.pubsub.history import History
    from tornado_ws.pubsub.messages import Position
    from tornado_ws.pubsub.subscriptions import Subscription
    from tornado_ws.pubsub.topics import Topics
    from tornado_ws.server.http import HTTPServer
    from tornado_ws.server.settings import check_settings
    from tornado_ws.server.shutdown import ClosedAll, close_all
else:

    def __getattr__(name: str) -> object:
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_LATE[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATE})


__version__ = "1.0.0"

__all__ = [
    "BrokerError",
    "ClosedAll",
    "ConnectionFilter",
    "Counters",
    "Envelope",
    "HTTPServer",
    "HandshakeError",
    "HandshakeRejectedError",
    "History",
    "InvalidHandshakeError",
    "Latency",
    "MessageStream",
    "Position",
    "ProcessCounters",
    "ProxyError",
    "PublishError",
    "RedirectError",
    "Resume",
    "ResumedConnection",
    "Subscription",
    "SubscriptionLimitError",
    "TopicGapError",
    "TopicNameError",
    "Topics",
    "WebSocketClientConnection",
    "WebSocketClosedError",
    "WebSocketError",
    "WebSocketHandler",
    "WebSocketProtocol",
    "WebSocketProtocol13",
    "WriteLimitError",
    "WriteStream",
    "broadcast",
    "check_settings",
    "close_all",
    "counters",
    "install",
    "reconnect",
    "uninstall",
    "websocket_connect",
]
