"""Opens a client's stream: tries the addresses of a name in parallel, and closes all of them when it is given up."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import ssl
from collections import deque
from collections.abc import Iterable
from typing import Any

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.netutil import Resolver, ssl_wrap_socket
from tornado.tcpclient import TCPClient

from tornado_ws.client.connectors import Address, Connector, SslOptions

#: Seconds that an address has for itself before the next one is tried too (RFC 8305 section 5).
ATTEMPT_DELAY = 0.25


def _is_replaced(connect: Any) -> bool:
    """Whether an application has put something in the place of Tornado's, as turbo-tunnel does."""
    return getattr(connect, "__module__", None) != TCPClient.__module__ or hasattr(connect, "__wrapped__")


class AbortableTCPClient(TCPClient):
    """A `.TCPClient` for one connection. `abort` closes whatever it has opened, in name resolution, TCP or TLS.

    Tornado's own leaves the socket of a connect that was cancelled or timed out open, and tries the addresses of one
    family one after the other, so that one that does not answer takes all the time that there is.
    """

    def __init__(
        self,
        resolver: Resolver | None = None,
        connector: Connector | None = None,
        source_address: tuple[str, int] | None = None,
        server_hostname: str | None = None,
    ) -> None:
        super().__init__(resolver=resolver)
        self._connector = connector
        self._source_address = source_address
        self._server_hostname = server_hostname
        self._stream_options: dict[str, Any] = {}
        #: What a timeout would interrupt, for its message.
        self.phase = "resolving the host name"
        self._aborted = False
        self._streams: list[IOStream] = []

    async def connect(
        self,
        host: str,
        port: int,
        af: socket.AddressFamily = socket.AF_UNSPEC,
        ssl_options: dict[str, Any] | ssl.SSLContext | None = None,
        max_buffer_size: int | None = None,
        source_ip: str | None = None,
        source_port: int | None = None,
        timeout: object = None,
    ) -> IOStream:
        """Connect as Tornado's does, but without its ``timeout``: ours covers the opening handshake too."""
        if self._connector is None and _is_replaced(TCPClient.connect):
            options: dict[str, Any] = {"af": af, "ssl_options": ssl_options, "max_buffer_size": max_buffer_size}
            return await super().connect(host, port, **options, source_ip=source_ip, source_port=source_port)
        if self._source_address is not None:
            source_ip, source_port = self._source_address
        self._stream_options = {
            "max_buffer_size": max_buffer_size,
            "source_ip": source_ip,
            "source_port": source_port,
        }
        if self._connector is None:
            stream = await self.open_tcp(host, port, af)
        else:
            stream = await self._connector.connect(self, host, port, af, ssl_options is not None)
        if ssl_options is not None:
            self.phase = "in the TLS handshake"
            stream = await self.start_tls(stream, self._server_hostname or host, ssl_options)
        self.phase = "in the opening handshake"
        return stream

    async def resolve(self, host: str, port: int, af: int, hop: str = "") -> list[Address]:
        """Return the addresses of ``host``, the families in turn."""
        self.phase = f"resolving the host name{hop}"
        return interleaved(await self.resolver.resolve(host, port, socket.AddressFamily(af)))

    async def open_tcp(self, host: str, port: int, af: int, hop: str = "") -> IOStream:
        """Return a stream to the first address of ``host`` that takes the connection."""
        return await self._connect_to_any(host, await self.resolve(host, port, af, hop), hop)

    def own(self, stream: IOStream) -> IOStream:
        """Return ``stream``, which `abort` closes."""
        self._streams.append(stream)
        if self._aborted:
            self.abort()
        return stream

    def abort(self) -> None:
        """Close every socket that was opened, and at once every one that is opened later."""
        self._aborted = True
        for stream in self._streams:
            stream.close()
        self._streams = []
        if self._connector is not None:
            self._connector.give_up()

    def _create_stream(self, *args: Any, **kwargs: Any) -> Any:
        stream, future = super()._create_stream(*args, **kwargs)
        return self.own(stream), future

    async def _connect_to_any(self, host: str, addresses: list[Address], hop: str) -> IOStream:
        """Return the stream of the first of ``addresses`` that takes the connection, and close those of the others.

        The next one is tried `ATTEMPT_DELAY` after the last, or when an attempt fails.
        """
        waiting = deque(addresses)
        attempts: dict[asyncio.Future[Any], str] = {}
        failures: list[str] = []
        error: BaseException | None = None
        while waiting or attempts:
            if waiting and not self._aborted:
                family, address = waiting.popleft()
                try:
                    _, future = self._create_stream(af=family, addr=address, **self._stream_options)
                except Exception as refused:
                    # A family that this machine does not have, or no descriptor left.
                    error = refused
                    failures.append(f"{_shown(address)}: {_reason(refused)}")
                    continue
                attempts[future] = _shown(address)
            elif not attempts:
                break
            self.phase = f"connecting to {', '.join(attempts.values())}{hop}"
            done, _ = await asyncio.wait(
                attempts, timeout=ATTEMPT_DELAY if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for future in done:
                shown = attempts.pop(future)
                if (failure := future.exception()) is None:
                    stream: IOStream = future.result()
                    for other in self._streams:
                        if other is not stream:
                            other.close()
                    self._streams = [stream]
                    return stream
                error = getattr(failure, "real_error", None) or failure
                failures.append(f"{shown}: {_reason(error)}")
        if self._aborted:
            raise StreamClosedError
        raise _failed(host, failures, error) from error

    async def start_tls(self, stream: IOStream, name: str, ssl_options: SslOptions) -> SSLIOStream:
        """Return ``stream`` with TLS over it; ``name`` is what its certificate has to be for."""
        # As IOStream.start_tls does it, but with the new stream in our hands from the beginning.
        if stream.closed() or stream.error is not None:
            # A server that resets at once was seen before us. With an error alone the closing is still to come.
            stream.close()
            raise StreamClosedError(real_error=stream.error)
        connected = stream.socket
        if _was_reset(connected):
            stream.close()
            raise _reset_error()
        stream.io_loop.remove_handler(connected)
        stream.socket = None  # type: ignore[assignment]
        # That it is not closed by the `abort` of what has its socket now.
        self._streams.remove(stream)
        # A certificate has the address without its zone.
        name = name.partition("%")[0]
        try:
            wrapped = ssl_wrap_socket(
                connected, ssl_options, server_hostname=name, server_side=False, do_handshake_on_connect=False
            )
        except BaseException:
            connected.close()
            raise
        if _was_reset(wrapped):
            # Then the ssl module has made no session, and the handshake would end in its AttributeError.
            wrapped.close()
            raise _reset_error()
        tls = SSLIOStream(wrapped, ssl_options=ssl_options)
        self.own(tls)
        return await tls.wait_for_handshake()


def interleaved(addresses: Iterable[Address]) -> list[Address]:
    """Return ``addresses`` with their families in turn, each in the order that it has (RFC 8305 section 4)."""
    families: dict[int, list[Address]] = {}
    for family, address in addresses:
        families.setdefault(family, []).append((family, address))
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None]


def _failed(host: str, failures: list[str], last: BaseException | None) -> OSError:
    text = f"cannot connect to {host}: {'; '.join(failures) or 'it has no address'}"
    # The number makes it a ConnectionRefusedError and the like.
    number = getattr(last, "errno", None)
    return OSError(number, text) if number else OSError(text)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _was_reset(connected: socket.socket) -> bool:
    try:
        connected.getpeername()
    except OSError:
        return True
    return False


def _reset_error() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def _shown(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
