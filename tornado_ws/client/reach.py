"""How a client gets to its server, as arguments: each of them checked, and the connector that they make."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from typing import Any

from tornado.netutil import is_valid_ip

from tornado_ws.client.connectors import (
    Connector,
    SocketConnector,
    SslOptions,
    UnixConnector,
    checked_socket,
    checked_unix,
)
from tornado_ws.client.proxy import chosen_proxy
from tornado_ws.client.tunnel import ProxyConnector
from tornado_ws.escaping import shown


@dataclass(frozen=True)
class Reach:
    """What `websocket_connect` takes of that; `checked_reach` makes one of what it was given."""

    proxy: str | bool | None = None
    proxy_ssl_options: SslOptions | None = None
    unix: str | bytes | None = None
    sock: socket.socket | None = None
    source_address: tuple[str, int] | None = None
    server_hostname: str | None = None

    @property
    def is_bound(self) -> bool:
        """Whether it leads to one server only, whatever a URL says."""
        return self.unix is not None or self.sock is not None

    def elsewhere(self) -> Reach:
        """Return the way to another origin."""
        return replace(self, server_hostname=None)

    def connector(self, request: Any) -> Connector | None:
        """Return the way to the server of ``request``, whose URL is http or https; None is TCP without a proxy."""
        if self.sock is not None:
            return SocketConnector(self.sock)
        if self.unix is not None:
            return UnixConnector(self.unix)
        proxy = chosen_proxy(self.proxy, request)
        return None if proxy is None else ProxyConnector(proxy, self.proxy_ssl_options)


#: With nothing given.
DIRECT = Reach()


def checked_reach(
    proxy: str | bool | None,
    proxy_ssl_options: SslOptions | None,
    unix: Any,
    sock: Any,
    source_address: Any,
    server_hostname: Any,
) -> Reach:
    """Return what the arguments mean. Raises ValueError for those that are wrong, or do not go together."""
    # A proxy of the environment is for connections that leave the machine.
    given = {"proxy": isinstance(proxy, str), "unix": unix is not None, "sock": sock is not None}
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)} are given; only one of them can be the way to the server")
    if source_address is not None:
        source_address = _checked_source(source_address, names)
    if server_hostname is not None and not (isinstance(server_hostname, str) and server_hostname):
        raise ValueError(f"server_hostname is {shown(server_hostname)}; it has to be a host name, a str")
    return Reach(
        proxy,
        proxy_ssl_options,
        None if unix is None else checked_unix(unix),
        None if sock is None else checked_socket(sock),
        source_address,
        server_hostname,
    )


def _checked_source(source_address: Any, names: list[str]) -> tuple[str, int]:
    if "unix" in names or "sock" in names:
        raise ValueError(f"{names[0]} and source_address are given; source_address is for TCP connects only")
    try:
        host, port = source_address
        is_right = is_valid_ip(host) and isinstance(port, int) and not isinstance(port, bool) and 0 <= port < 65536
    except (TypeError, ValueError, AttributeError):
        is_right = False
    if not is_right:
        raise ValueError(
            f"source_address is {shown(source_address)}; it has to be a pair of an IP address of this machine and a "
            "port, 0 for any"
        )
    return host, port
