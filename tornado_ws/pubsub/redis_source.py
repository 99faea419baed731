"""What makes connections to the server that a URL names: a server, the primary that sentinels name, or a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import ConnectionPool, RedisCluster
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

#: Time limits are a link's own: a blocking read is not to be ended by a limit that is meant for others. A reply of many
#: messages is taken in pieces as large as asyncio reads them.
_OPTIONS: dict[str, Any] = {
    "protocol": 2,
    "decode_responses": False,
    "socket_timeout": None,
    "socket_read_size": 1 << 18,
}

#: Seconds for which it is believed which node of a cluster has what.
_TOPOLOGY_AGE = 0.5

#: Makes a connection, which is not connected yet.
Make = Callable[[], Awaitable[Any]]


class Source:
    """One server, over TCP, TLS or a Unix socket. ``name`` is the URL without a password."""

    #: Whether each stream needs a connection of its own.
    is_divided = False

    def __init__(self, url: str) -> None:
        self._pool: Any = ConnectionPool.from_url(url, **_OPTIONS)
        kwargs = self._pool.connection_kwargs
        name = kwargs.get("path") or f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}"
        self.name = f"{url.partition(':')[0]}://{name}"

    def maker(self, key: str) -> Make:
        """Return what makes connections to where ``key`` is."""
        return self._make

    async def _make(self) -> Any:
        return self._pool.make_connection()

    async def close(self) -> None:
        """Close what connections were found with."""


class SentinelSource(Source):
    """``redis+sentinel://HOST:PORT,HOST:PORT/SERVICE``: the primary of a service."""

    def __init__(self, url: str) -> None:
        hosts, _, service = url.partition("://")[2].partition("/")
        credentials, _, hosts = hosts.rpartition("@")
        user, _, password = credentials.partition(":")
        addresses = [host.partition(":") for host in hosts.split(",")]
        if not service:
            raise ValueError("a redis+sentinel URL ends with the name of a service: redis+sentinel://HOST:PORT/SERVICE")
        given: dict[str, Any] = {"username": user or None, "password": password} if credentials else {}
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            [(host or "localhost", int(port or 26379)) for host, _, port in addresses], socket_timeout=2, **given
        )
        self._sentinels = sentinel.sentinels
        self._pool = sentinel.master_for(service, **_OPTIONS, **given).connection_pool
        self.name = f"redis+sentinel://{hosts}/{service}"

    async def close(self) -> None:
        for sentinel in self._sentinels:
            with contextlib.suppress(RedisError, OSError):
                await sentinel.aclose()


class ClusterSource(Source):
    """``redis+cluster://HOST:PORT`` and ``rediss+cluster://HOST:PORT``: the node of a cluster that has a key."""

    is_divided = True

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("+cluster")
        # Its own limit for questions stays: they are short.
        self._cluster = RedisCluster.from_url(scheme + rest, protocol=2)
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()
        self.name = f"{scheme}+cluster://{rest.rpartition('@')[2].removeprefix('://')}"

    def maker(self, key: str) -> Make:
        async def make() -> Any:
            async with self._asking:
                if self._asked_at is None or time.monotonic() > self._asked_at + _TOPOLOGY_AGE:
                    await self._cluster.nodes_manager.initialize()
                    self._asked_at = time.monotonic()
            node: Any = self._cluster.get_node_from_key(key)
            return node.connection_class(**{**node.connection_kwargs, **_OPTIONS})

        return make

    async def close(self) -> None:
        for nodes in ("nodes_cache", "startup_nodes"):
            with contextlib.suppress(RedisError, OSError):
                await self._cluster.nodes_manager.aclose(nodes)


def source_of(url: str) -> Source:
    """Return the source for a URL. Raises ValueError for one that is not allowed."""
    scheme = url.partition("://")[0]
    if scheme == "redis+sentinel":
        return SentinelSource(url)
    if scheme in ("redis+cluster", "rediss+cluster"):
        return ClusterSource(url)
    return Source(url)
