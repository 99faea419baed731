"""A connection to a server through a proxy: CONNECT of HTTP (RFC 9110 section 9.3.6), and SOCKS."""

from __future__ import annotations

import base64
import re
import socket
import ssl
from typing import Any

from tornado.httputil import encode_username_password
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError

from tornado_ws.client.connectors import Opener, SslOptions
from tornado_ws.client.proxy import Proxy
from tornado_ws.client.relay import relay
from tornado_ws.errors import ProxyError
from tornado_ws.transport.stream import take_read_bytes

#: With or without a reason, and whatever that holds (RFC 9112 section 4).
_STATUS_LINE = re.compile(r"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: (.*))?", re.DOTALL)

#: Bytes of the head of a proxy's answer, and answers of 1xx before the one that counts.
_MAX_HEAD = 65536
_MAX_INTERIM = 10

#: Seconds. python-socks has a timeout of its own, where ours covers everything.
_NEVER = 1e8

#: Schemes with which the client resolves the server's name, and the family that they can carry.
_RESOLVED_HERE = {"socks5": socket.AF_UNSPEC, "socks4": socket.AF_INET}


class ProxyConnector:
    """Connects through one proxy."""

    def __init__(self, proxy: Proxy, ssl_options: SslOptions | None = None) -> None:
        """``ssl_options`` are for TLS with the proxy itself; None trusts what the system does."""
        self._proxy = proxy
        self._ssl_options = ssl_options

    async def connect(self, opener: Opener, host: str, port: int, af: int, over_tls: bool) -> IOStream:
        """Return a stream to the server, for TLS or HTTP on top. Raises ProxyError."""
        stream = await self._connect_to_any(opener, host, port, af)
        if not over_tls:
            return stream
        if take_read_bytes(stream):
            raise ProxyError(str(self._proxy), "sent more than its answer, before anything was sent to the server")
        return opener.own(relay(stream)) if isinstance(stream.socket, ssl.SSLSocket) else stream

    def give_up(self) -> None:
        pass

    async def _connect_to_any(self, opener: Opener, host: str, port: int, af: int) -> IOStream:
        targets = await self._targets(opener, host, port, af)
        for target in targets[:-1]:
            try:
                return await self._open(opener, target, port)
            except ProxyError as error:
                if error.status is None:
                    raise
        return await self._open(opener, targets[-1], port)

    async def _targets(self, opener: Opener, host: str, port: int, af: int) -> list[str]:
        """Return what the proxy is to connect to: names, or addresses in the order to try them."""
        family = _RESOLVED_HERE.get(self._proxy.scheme)
        if family is None:
            return [host]
        found = await opener.resolve(host, port, af)
        addresses = [address[0] for other, address in found if family in (socket.AF_UNSPEC, other)]
        if not addresses:
            raise ProxyError(
                str(self._proxy), f"cannot connect to {_target(host, port)}: the name has no address that it can carry"
            )
        return addresses

    async def _open(self, opener: Opener, host: str, port: int) -> IOStream:
        stream = await self._open_proxy(opener)
        opener.phase = f"waiting for proxy {self._proxy} to connect to {_target(host, port)}"
        negotiate = _connect_by_http if self._proxy.is_http else _connect_by_socks
        try:
            await negotiate(stream, self._proxy, host, port)
        except StreamClosedError as error:
            if isinstance(error.real_error, UnsatisfiableReadError):
                words = f"sent an answer with a head of more than {_MAX_HEAD} bytes"
            else:
                words = "closed the connection before it had answered"
            raise ProxyError(str(self._proxy), f"{words}{_reason(error.real_error)}") from error
        return stream

    async def _open_proxy(self, opener: Opener) -> IOStream:
        proxy, hop = self._proxy, f" of proxy {self._proxy}"
        try:
            stream = await opener.open_tcp(proxy.host, proxy.port, socket.AF_UNSPEC, hop)
            if proxy.scheme == "https":
                opener.phase = f"in the TLS handshake with proxy {proxy}"
                stream = await opener.start_tls(stream, proxy.host, self._ssl_options or ssl.create_default_context())
            return stream
        except OSError as error:
            # A StreamClosedError has the error of the system or of TLS in it.
            real = getattr(error, "real_error", None) or error
            step = "failed in the TLS handshake" if isinstance(real, ssl.SSLError) else "cannot be reached"
            raise ProxyError(str(proxy), f"{step}{_reason(real)}") from error


async def _connect_by_http(stream: IOStream, proxy: Proxy, host: str, port: int) -> None:
    target = _target(host, port)
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.username is not None:
        user = base64.b64encode(encode_username_password(proxy.username, proxy.password or "")).decode()
        request += f"Proxy-Authorization: Basic {user}\r\n"
    await stream.write(f"{request}\r\n".encode())
    for _ in range(_MAX_INTERIM):
        head = await stream.read_until_regex(rb"\r?\n\r?\n", max_bytes=_MAX_HEAD)
        line = re.split(rb"\r?\n", head, maxsplit=1)[0].decode("latin-1")
        if not (found := _STATUS_LINE.fullmatch(line)):
            raise ProxyError(str(proxy), f"sent an answer that is not HTTP: {line}")
        status, reason = int(found[1]), found[2] or ""
        if 200 <= status < 300:
            return
        if status >= 200:
            break
    raise _refused(proxy, target, status, f"HTTP {status} {reason}".rstrip())


async def _connect_by_socks(stream: IOStream, proxy: Proxy, host: str, port: int) -> None:
    # Optional, so it is imported for who has such a proxy.
    from python_socks import ProxyError as SocksError
    from python_socks import ProxyType
    from python_socks.async_.asyncio.v2 import Proxy as SocksProxy

    socks: Any = SocksProxy(
        ProxyType.SOCKS4 if proxy.scheme == "socks4" else ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        username=proxy.username,
        password=proxy.password,
        # A name that is left has to be resolved there.
        rdns=True,
        forward=_Opened(stream),  # type: ignore[arg-type]
    )
    try:
        await socks.connect(host, port, timeout=_NEVER)
    except SocksError as error:
        code = error.error_code
        said = f"SOCKS reply {int(code)}, {error}" if code is not None else str(error)
        raise _refused(proxy, _target(host, port), None if code is None else int(code), said) from error
    except ValueError as error:
        # A name of more than 255 bytes, or with a label of more than 63.
        raise ProxyError(str(proxy), f"cannot be asked for {_target(host, port)}: {error}") from error


class _Opened:
    """What python-socks takes for a proxy before the proxy: it gives the stream that is there already.

    That is also the stream that python-socks speaks through.
    """

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream

    async def connect(self, **_: Any) -> _Opened:
        return self

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def read_exactly(self, size: int) -> bytes:
        return await self._stream.read_bytes(size)

    async def close(self) -> None:
        self._stream.close()

    # Their names in python-socks 2.
    write_all = write
    read_exact = read_exactly


def _refused(proxy: Proxy, target: str, status: int | None, said: str) -> ProxyError:
    return ProxyError(str(proxy), f"refused to connect to {target}: {said}", status)


def _target(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: BaseException | None) -> str:
    words = getattr(error, "strerror", None) or str(error or "")
    return f": {words}" if words else ""
