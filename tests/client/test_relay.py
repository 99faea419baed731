"""What carries TLS inside TLS, over sockets by hand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tornado.iostream import IOStream

from tests.conftest import Tls
from tests.peer import RawPeer, Sockets, raw_server
from tests.support import until
from tornado_ws.client import relay as relays
from tornado_ws.client.relay import relay


@contextlib.asynccontextmanager
async def relayed() -> AsyncIterator[tuple[IOStream, RawPeer]]:
    """Give the near end of a relay, and the peer at its far end."""
    sockets = Sockets()
    async with raw_server() as server:
        far = IOStream(socket.create_connection(("127.0.0.1", server.port)))
        peer = await server.accept_tcp()
        near = relay(far)
        yield near, peer
        near.close()
        peer.close()
    await until(lambda: not sockets.new())


@pytest.mark.gen_test
async def test_bytes_go_both_ways_as_they_are() -> None:
    async with relayed() as (near, peer):
        await near.write(b"out")
        assert await peer.receive_bytes() == b"out"
        await peer.send(b"in")
        assert await near.read_bytes(2) == b"in"


@pytest.mark.gen_test
async def test_the_last_bytes_arrive_though_others_were_not_read() -> None:
    """A close over unread bytes is a reset, which would destroy them."""
    async with relayed() as (near, peer):
        # More than all buffers on the way, so that some is not read when the near end closes.
        sending = asyncio.ensure_future(peer.send(b"x" * 20_000_000))
        assert await near.read_bytes(1) == b"x"
        await near.write(b"last")
        near.close()
        received = b""
        while data := await peer.receive_bytes():
            received += data
        assert received == b"last"
        await sending


@pytest.mark.gen_test
async def test_a_far_end_that_does_not_close_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "_LINGER", 0.1)
    async with relayed() as (near, peer):
        near.close()
        assert await peer.receive_bytes() == b""
        assert await peer.is_cut_off(b"x")


@pytest.mark.gen_test
@pytest.mark.parametrize("by", ["FIN", "RST"])
async def test_the_near_end_sees_the_end(by: str) -> None:
    async with relayed() as (near, peer):
        await peer.send(b"last")
        # A reset may overtake what is on its way.
        assert await near.read_bytes(4) == b"last"
        if by == "FIN":
            peer.close()
        else:
            peer.reset()
        assert await near.read_until_close() == b""


@pytest.mark.gen_test
async def test_the_outer_session_ends_as_tls_wants_it(tls: Tls) -> None:
    """With close_notify: else a strict peer has to take the end for a cut (RFC 8446 section 6.1)."""
    ends: list[Any] = []

    def serve(sock: socket.socket) -> None:
        with tls.server.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as secure:
            secure.settimeout(60)
            while data := secure.recv(65536):
                ends.append(data)

    async with raw_server() as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        peer = await server.accept_tcp()
        peer.sock.setblocking(True)
        serving = asyncio.get_running_loop().run_in_executor(None, serve, peer.sock)
        far = await IOStream(sock).start_tls(False, tls.client, server_hostname="localhost")
        near = relay(far)
        await near.write(b"last")
        near.close()
        try:
            await serving
        except ssl.SSLEOFError:
            pytest.fail("cut off")
        assert ends == [b"last"]
        await until(far.closed)
