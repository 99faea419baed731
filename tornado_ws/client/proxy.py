"""Which proxy a client uses: from an argument, an `.HTTPRequest` or the environment."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from tornado_ws.escaping import shown, without_password

#: Schemes and their default ports. With "socks5h" the proxy resolves the server's name.
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080, "socks4": 1080}
_ALLOWED = ", ".join(_PORTS)

_HOST = re.compile(r"\[[0-9A-Za-z:.%]+\]|[^\s\[\]:/@?#\x00-\x20\x7f]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, repr=False)
class Proxy:
    """A proxy that can be used: it is checked already."""

    scheme: str
    #: Without brackets.
    host: str
    port: int
    username: str | None = None
    password: str | None = None

    @property
    def is_http(self) -> bool:
        return self.scheme in ("http", "https")

    def __str__(self) -> str:
        """Return its URL, without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    __repr__ = __str__


def chosen_proxy(argument: Any, request: Any) -> Proxy | None:
    """Return the proxy to use for ``request``, whose URL is http or https already, or None for none.

    ``argument`` is that of `websocket_connect`. Raises ValueError for one that is wrong, wherever it comes from.
    """
    if argument is False:
        return None
    if isinstance(argument, str):
        return parse_proxy(argument, "proxy")
    if argument is not None and argument is not True:
        raise ValueError(
            f"proxy is {shown(argument)}; it has to be a URL, True for the environment's, False for none, or None"
        )
    if request.proxy_host:
        return _of_request(request)
    return _of_environment(request.url) if argument else None


def parse_proxy(url: str, source: str) -> Proxy:
    """Return what ``url`` means. Raises ValueError, without the password, for a wrong one; ``source`` names it.

    Raises ImportError for a SOCKS proxy where python-socks is missing.
    """
    name = f"{source} is {shown(without_password(url))}"
    try:
        parts = urlsplit(url)
    except ValueError:
        # Its own words may hold the password.
        raise ValueError(f"{name}; that is no URL") from None
    if parts.scheme not in _PORTS or not url[len(parts.scheme) :].startswith("://"):
        raise ValueError(f"{name}; it has to begin with the scheme of a proxy and ://, and schemes are {_ALLOWED}")
    user, _, host_and_port = parts.netloc.rpartition("@")
    host, port = _split_port(host_and_port)
    if not _HOST.fullmatch(host):
        raise ValueError(f"{name}; it has no host")
    if port and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise ValueError(f"{name}; its port has to be a number from 1 to 65535")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"{name}; a proxy has no path, query or fragment")
    username, colon, password = user.partition(":")
    return _checked(
        Proxy(
            parts.scheme,
            host.strip("[]"),
            int(port) if port else _PORTS[parts.scheme],
            unquote(username) if user else None,
            unquote(password) if colon else None,
        ),
        name,
    )


def _split_port(host_and_port: str) -> tuple[str, str]:
    if host_and_port.endswith("]"):
        return host_and_port, ""
    host, colon, port = host_and_port.rpartition(":")
    return (host, port) if colon else (host_and_port, "")


def _checked(proxy: Proxy, name: str) -> Proxy:
    username, password = proxy.username, proxy.password
    if _CONTROL.search(f"{username}{password}"):
        raise ValueError(f"{name}; its user or password has a control character")
    if proxy.is_http:
        if username is not None and ":" in username:
            raise ValueError(f"{name}; its user has a colon, which Basic authentication cannot carry")
        return proxy
    if importlib.util.find_spec("python_socks") is None:
        raise ImportError(f"{name}; SOCKS needs python-socks: pip install 'tornado_ws[proxy]'")
    if proxy.scheme == "socks4":
        if password is not None:
            raise ValueError(f"{name}; SOCKS4 has a user and no password")
    elif (username is None) != (password is None):
        raise ValueError(f"{name}; SOCKS5 has a user and a password, or neither")
    for part in (username, password):
        # RFC 1929 section 2; ASCII is what python-socks sends.
        if part is not None and not (part.isascii() and 0 < len(part) < 256):
            raise ValueError(f"{name}; user and password of SOCKS have to be of 1 to 255 ASCII characters")
    return proxy


def _of_request(request: Any) -> Proxy:
    host, port = request.proxy_host, request.proxy_port
    name = f"proxy_host is {shown(without_password(str(host)))} and proxy_port is {shown(port)}"
    # Brackets are curl's way for IPv6, and it can do without.
    bare = str(host).strip("[]")
    if not _HOST.fullmatch(f"[{bare}]" if ":" in bare else bare):
        raise ValueError(f"{name}; proxy_host has to be a host without scheme and port, else see proxy=")
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise ValueError(f"{name}; both have to be given, and the port has to be a number from 1 to 65535")
    if request.proxy_auth_mode not in (None, "basic"):
        raise ValueError(f"proxy_auth_mode is {shown(request.proxy_auth_mode)}; it has to be 'basic' or None")
    username = request.proxy_username
    password = request.proxy_password if username is not None else None
    return _checked(Proxy("http", bare, port, username, password), name)


def _of_environment(url: str) -> Proxy | None:
    """Return the proxy of the environment for ``url``, by the rules of `urllib.request`."""
    # It imports much, for who has such a proxy.
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    host, is_secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_secure else 80)
    if proxy_bypass(host) or proxy_bypass(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"):
        return None
    proxies = getproxies()
    # RFC 6455 section 4.1 would have SOCKS first, and the proxy for https before that for http: it knows CONNECT.
    for name in ("wss", "socks", "https", "all") if is_secure else ("ws", "socks", "https", "http", "all"):
        if found := proxies.get(name):
            return parse_proxy(found if "://" in found else f"http://{found}", f"the proxy of the system for {name}")
    return None
