"""Connecting a client's socket so that giving up, at any moment, closes it."""

from __future__ import annotations

import ssl
from typing import Any

from tornado.iostream import IOStream, SSLIOStream
from tornado.netutil import ssl_wrap_socket
from tornado.tcpclient import TCPClient


class AbortableTCPClient(TCPClient):
    """A `.TCPClient` for one connection. `abort` closes whatever it has opened, in name resolution, TCP or TLS.

    Tornado's own leaves the socket of a connect that was cancelled or timed out open.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: What a timeout would interrupt, for its message.
        self.phase = "resolving the host name"
        self._aborted = False
        self._streams: list[IOStream] = []

    async def connect(self, host: str, port: int, **kwargs: Any) -> IOStream:  # type: ignore[override]
        """Connect as Tornado's does, but without its ``timeout``: ours covers the opening handshake too."""
        ssl_options = kwargs.pop("ssl_options", None)
        kwargs.pop("timeout", None)
        stream = await super().connect(host, port, **kwargs)
        if ssl_options is not None:
            self.phase = "in the TLS handshake"
            stream = await self._start_tls(stream, host, ssl_options)
        self.phase = "in the opening handshake"
        self._streams = [stream]
        return stream

    def abort(self) -> None:
        """Close every socket that was opened, and at once every one that is opened later."""
        self._aborted = True
        for stream in self._streams:
            stream.close()
        self._streams = []

    def _create_stream(self, *args: Any, **kwargs: Any) -> Any:
        self.phase = "connecting"
        stream, future = super()._create_stream(*args, **kwargs)
        self._streams.append(stream)
        if self._aborted:
            self.abort()
        return stream, future

    async def _start_tls(
        self, stream: IOStream, host: str, ssl_options: dict[str, Any] | ssl.SSLContext
    ) -> SSLIOStream:
        # As IOStream.start_tls does it, but with the new stream in our hands from the beginning.
        connected = stream.socket
        stream.io_loop.remove_handler(connected)
        stream.socket = None  # type: ignore[assignment]
        self._streams = []
        try:
            wrapped = ssl_wrap_socket(
                connected, ssl_options, server_hostname=host, server_side=False, do_handshake_on_connect=False
            )
        except BaseException:
            connected.close()
            raise
        tls = SSLIOStream(wrapped, ssl_options=ssl_options)
        self._streams = [tls]
        return await tls.wait_for_handshake()
