"""The 101 that accepts an opening handshake, past Tornado's code for answers of every kind: surgery on its handlers.

`.RequestHandler.finish` makes one write out of some hundred calls, four Futures and as many changes of the socket's
options. What is left behind here is the same: bytes, attributes, and what was called that applications override.
"""

from __future__ import annotations

import functools
import http.client
import time
from typing import Any

import tornado
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, ResponseStartLine, format_timestamp
from tornado.iostream import IOStream, SSLIOStream
from tornado.web import RequestHandler

_SERVER = f"TornadoServer/{tornado.version}"
_STATUS = 101
_REASON = http.client.responses[_STATUS]
_START_LINE = ResponseStartLine("", _STATUS, _REASON)
#: What is not called. Whoever has something else in the place of one of them gets it called.
_CLEAR = RequestHandler.clear
_CLEAR_HEADER = RequestHandler.clear_header
_SET_HEADER = RequestHandler.set_header
_SET_STATUS = RequestHandler.set_status
_FINISH = RequestHandler.finish
_FLUSH = RequestHandler.flush
_WRITE_HEADERS = HTTP1Connection.write_headers
_FINISH_ANSWER = HTTP1Connection.finish
_WRITE = IOStream.write
#: What `RequestHandler.finish` takes out of an answer without a body.
_OF_A_BODY = ("Content-Encoding", "Content-Language", "Content-Type")


def clear_answer(handler: Any) -> bool:
    """Do what ``RequestHandler.clear`` does, which makes the Date anew each time; return whether it was done."""
    if RequestHandler.clear is not _CLEAR:
        return False
    handler._headers = HTTPHeaders()
    fields = handler._headers
    fields["Server"] = _SERVER
    fields["Content-Type"] = "text/html; charset=UTF-8"
    fields["Date"] = _date(int(time.time()))
    handler.set_default_headers()
    handler._write_buffer = []
    handler._status_code = 200
    handler._reason = http.client.responses[200]
    return True


@functools.lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return format_timestamp(seconds)


def send_101(handler: Any, accept: str) -> bool:
    """Send the 101 with ``accept`` as Sec-WebSocket-Accept, and do all else that ``handler.finish()`` does.

    Returns False, with nothing sent, where that takes more than a write.
    """
    connection: Any = handler.request.connection
    if not _is_plain(handler, connection):
        return False
    headers = handler._headers
    for name in _OF_A_BODY:
        if name in headers._as_list:
            del headers[name]
    headers["Upgrade"] = "websocket"
    headers["Connection"] = "Upgrade"
    headers["Sec-WebSocket-Accept"] = accept
    data = _encode(headers)
    if data is None:
        return False
    handler._status_code = _STATUS
    handler._reason = _REASON
    handler._headers_written = True
    connection._close_callback = None
    connection._response_start_line = _START_LINE
    _write(connection.stream, data)
    connection._write_finished = True
    # HTTP goes on if one of these raises, as it does behind any other answer.
    if not connection._finish_future.done():
        connection._finish_future.set_result(None)
    handler._log()
    handler._finished = True
    handler.on_finish()
    handler._break_cycles()
    return True


def _is_plain(handler: Any, connection: Any) -> bool:
    if type(connection) is not HTTP1Connection or type(connection.stream) not in (IOStream, SSLIOStream):
        return False
    stream: Any = connection.stream
    if (
        handler._finished
        or handler._headers_written
        or handler._write_buffer
        or handler._transforms
        or hasattr(handler, "_new_cookie")
        or not connection._read_finished
        or connection._write_finished
        or connection._disconnect_on_finish
        or stream._closed
        or stream._write_buffer
        or type(handler._headers) is not HTTPHeaders
    ):
        return False
    # As an Any, or mypy takes the methods for functions.
    sender: Any = connection
    try:
        return (
            handler.finish.__func__ is _FINISH
            and handler.flush.__func__ is _FLUSH
            and handler.set_status.__func__ is _SET_STATUS
            and handler.set_header.__func__ is _SET_HEADER
            and handler.clear_header.__func__ is _CLEAR_HEADER
            and sender.write_headers.__func__ is _WRITE_HEADERS
            and sender.finish.__func__ is _FINISH_ANSWER
            and stream.write.__func__ is _WRITE
        )
    except AttributeError:
        # A function that somebody has set on the object.
        return False


def _encode(headers: HTTPHeaders) -> bytes | None:
    """Return the head of the answer; None for what Tornado refuses, or counts bytes of a body by."""
    lines = [f"HTTP/1.1 {_STATUS} {_REASON}"]
    try:
        for name, values in headers._as_list.items():
            for value in values:
                lines.append(name + ": " + value)
        text = "\r\n".join(lines)
        breaks = len(lines) - 1
        if text.count("\r") != breaks or text.count("\n") != breaks or "Content-Length" in headers._as_list:
            return None
        return text.encode("latin-1") + b"\r\n\r\n"
    except (TypeError, ValueError):
        return None


def _write(stream: Any, data: bytes) -> None:
    sent = 0
    if type(stream) is IOStream:
        try:
            sent = stream.socket.send(data)
        except BlockingIOError:
            pass
        except OSError as error:
            # As for what a write of ours has failed with: a stream keeps its error.
            stream.close(exc_info=error.with_traceback(None))
            return
    if sent < len(data):
        stream.write(data[sent:])
