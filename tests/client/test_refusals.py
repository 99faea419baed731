"""Answers that are no 101, with bodies of every kind: the caller learns the status and the headers."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.iostream import StreamClosedError
from tornado.simple_httpclient import HTTPStreamClosedError

from tests.conftest import Log, Tls
from tests.peer import RawPeer, Sockets, raw_server
from tests.support import until
from tornado_ws import HandshakeError, HandshakeRejectedError, websocket_connect
from tornado_ws.client.answers import BODY_SILENCE

MOST = 65536
ZIPPED = gzip.compress(bytes(range(256)) * 16)
BOMB = gzip.compress(bytes(50_000_000))
GZIP = b"Content-Encoding: gzip\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 65536


def endless_chunks() -> Iterator[bytes]:
    while True:
        yield b"10000\r\n" + b"x" * 65536 + b"\r\n"


def endless_small_chunks() -> Iterator[bytes]:
    while True:
        yield b"1\r\nx\r\n" * 1000


#: Headers, pieces of the body, whether FIN comes behind them, what the caller gets of it (None: anything).
BODIES: dict[str, tuple[bytes, Callable[[], Iterator[bytes]], bool, bytes | None]] = {
    "whole": (b"Content-Length: 6\r\n", lambda: iter([b"no way"]), False, b"no way"),
    "empty": (b"Content-Length: 0\r\n", lambda: iter([]), False, b""),
    "whole, in chunks": (CHUNKED, lambda: iter([b"2\r\nno\r\n4\r\n way\r\n", b"0\r\n\r\n"]), False, b"no way"),
    "whole, up to FIN": (b"", lambda: iter([b"no way"]), True, b"no way"),
    "whole, compressed": (GZIP, lambda: iter([ZIPPED]), True, bytes(range(256)) * 16),
    "the same length twice": (b"Content-Length: 6, 6\r\n", lambda: iter([b"no way"]), False, b"no way"),
    "large": (b"Content-Length: 1000000\r\n", lambda: iter([b"x" * 1_000_000]), True, b"x" * MOST),
    "too large": (b"Content-Length: 1000000000\r\n", endless, True, b"x" * MOST),
    "a length of many digits": (b"Content-Length: %b\r\n" % (b"9" * 5000), endless, True, None),
    "without end": (b"", endless, False, b"x" * MOST),
    "without end, in chunks": (CHUNKED, endless_chunks, False, b"x" * MOST),
    "without end, in small chunks": (CHUNKED, endless_small_chunks, False, None),
    "a bomb": (GZIP, lambda: iter([BOMB]), True, bytes(MOST)),
    "a bomb in chunks": (
        GZIP + CHUNKED,
        lambda: iter([b"%x\r\n%b\r\n0\r\n\r\n" % (len(BOMB), BOMB)]),
        True,
        bytes(MOST),
    ),
    "missing": (b"Content-Length: 10\r\n", lambda: iter([]), False, b""),
    "missing, in chunks": (CHUNKED, lambda: iter([]), False, b""),
    "missing, without a length": (b"", lambda: iter([]), False, b""),
    "late": (b"Content-Length: 10\r\n", lambda: iter([b"no"]), False, b"no"),
    "late, in chunks": (CHUNKED, lambda: iter([b"2\r\nno\r\n"]), False, b"no"),
    "late, without a length": (b"", lambda: iter([b"no"]), False, b"no"),
    "cut off": (b"Content-Length: 10\r\n", lambda: iter([b"no"]), True, b"no"),
    "cut off in a chunk": (CHUNKED, lambda: iter([b"2\r\nno\r\n4\r\n w"]), True, None),
    "cut off in a chunk's length": (CHUNKED, lambda: iter([b"2\r\nno\r\n4"]), True, None),
    "cut off, compressed": (GZIP, lambda: iter([ZIPPED[:-20]]), True, None),
    "no chunks": (CHUNKED, lambda: iter([b"hello\r\n\r\n"]), False, b""),
    "a chunk behind its length": (CHUNKED, lambda: iter([b"2\r\nnope\r\n\r\n"]), False, None),
    "a chunk that is too large": (CHUNKED, lambda: iter([b"2\r\nno\r\nfffffffffff\r\n"]), False, None),
    "a length that is no number": (b"Content-Length: 6x\r\n", lambda: iter([b"no way"]), False, b""),
    "a length below 0": (b"Content-Length: -6\r\n", lambda: iter([b"no way"]), False, b""),
    "two lengths": (b"Content-Length: 6, 7\r\n", lambda: iter([b"no way"]), False, b""),
    "chunks with a length": (CHUNKED + b"Content-Length: 6\r\n", lambda: iter([b"no way"]), False, b"no way"),
    "another transfer coding": (b"Transfer-Encoding: x\r\n", lambda: iter([b"no way"]), True, b"no way"),
    "compressed badly": (GZIP, lambda: iter([b"no gzip at all"]), False, b""),
    "compressed badly, in chunks": (GZIP + CHUNKED, lambda: iter([b"5\r\nhello\r\n"]), False, b""),
}

#: What Tornado's reader of chunks logs, at INFO. None of it is the peer's text.
OF_TORNADO = {
    f"Malformed HTTP message from None: {what}"
    for what in (
        "invalid chunk size",
        "chunked body too large",
        "improperly terminated chunked request",
        "improperly terminated chunk",
    )
}

#: No limit of time.
FOR_EVER: dict[str, Any] = {"connect_timeout": 0, "request_timeout": 0}


async def answer(peer: RawPeer, status: bytes, headers: bytes, body: Iterator[bytes], fin: bool) -> int:
    """Answer a client's request, and return how many bytes of a body the kernel took."""
    await peer.receive_head()
    await peer.send(b"HTTP/1.1 " + status + b"\r\nX-Server: mine\r\n" + headers + b"\r\n")
    sent = 0
    try:
        for piece in body:
            await peer.send(piece)
            sent += len(piece)
        if fin:
            peer.half_close()
    except OSError:
        pass
    return sent


async def refused(status: bytes, headers: bytes, body: Iterator[bytes], fin: bool, **options: Any) -> HandshakeError:
    """Connect to a server that answers so; return the exception, and see that nothing is left."""
    async with raw_server() as server:
        sockets = Sockets()
        connecting = websocket_connect(HTTPRequest(server.url, **{**FOR_EVER, **options}))
        peer = await server.accept_tcp()
        answering = asyncio.ensure_future(answer(peer, status, headers, body, fin))
        with pytest.raises(HandshakeError) as caught:
            await connecting
        # What the kernel's buffers hold, and not what a client that goes on reading takes.
        assert await answering < 32 << 20
        peer.close()
        await until(lambda: not sockets.new())
    assert caught.value.headers["X-Server"] == "mine"
    return caught.value


@pytest.mark.gen_test
@pytest.mark.parametrize("name", BODIES)
async def test_a_refusal_keeps_its_status_whatever_its_body_is(name: str, log: Log) -> None:
    headers, body, fin, expected = BODIES[name]
    error = await refused(b"429 Too Many Requests", headers, body(), fin)
    assert isinstance(error, HandshakeRejectedError)
    assert (error.status, error.code, error.reason) == (429, 429, "Too Many Requests")
    assert error.response is not None
    assert len(error.response.body) <= MOST
    if expected is not None:
        assert error.response.body == expected
    assert [line for line in log.lines if line not in OF_TORNADO] == []


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["without end", "missing", "cut off", "no chunks", "compressed badly"])
async def test_a_status_that_is_no_error_is_kept_too(name: str, log: Log) -> None:
    headers, body, fin, _ = BODIES[name]
    error = await refused(b"200 OK", headers, body(), fin)
    assert not isinstance(error, HTTPClientError)
    assert error.status == 200
    assert [line for line in log.lines if line not in OF_TORNADO] == []


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_a_status_without_a_body_is_told_at_once(status: bytes) -> None:
    assert (await refused(status, CHUNKED, iter([]), False)).status == int(status[:3])


@pytest.mark.gen_test
@pytest.mark.parametrize("headers", [b"", CHUNKED])
async def test_a_body_that_drips_is_waited_for_until_the_timeout(headers: bytes) -> None:
    async def drip() -> None:
        await peer.receive_head()
        await peer.send(b"HTTP/1.1 403 Forbidden\r\n" + headers + b"\r\n")
        while True:
            await peer.send(b"1\r\nx\r\n" if headers else b"x")
            await asyncio.sleep(0.05)

    async with raw_server() as server:
        connecting = websocket_connect(server.url, connect_timeout=1.5)
        peer = await server.accept_tcp()
        dripping = asyncio.ensure_future(drip())
        with pytest.raises(HandshakeRejectedError) as caught:
            await connecting
        with pytest.raises(OSError, match=r"reset|pipe"):
            await dripping
    assert caught.value.status == 403
    assert caught.value.response is not None
    assert caught.value.response.body[:2] == b"xx"


@pytest.mark.gen_test
@pytest.mark.parametrize(("headers", "body"), [(b"Content-Length: 6\r\n", b"no way"), (CHUNKED, b"6\r\nno way\r\n")])
async def test_a_loop_that_stood_still_looks_for_the_body_before_it_gives_up(headers: bytes, body: bytes) -> None:
    async with raw_server() as server:
        lines: list[str] = []
        connecting = websocket_connect(HTTPRequest(server.url, **FOR_EVER, header_callback=lines.append))
        peer = await server.accept_tcp()
        await answer(peer, b"403 Forbidden", headers, iter([]), False)
        await until(lambda: "\r\n" in lines)
        peer.sock.send(body)
        time.sleep(BODY_SILENCE * 1.1)
        with pytest.raises(HandshakeRejectedError) as caught:
            await connecting
    assert caught.value.response is not None
    assert caught.value.response.body == b"no way"


@pytest.mark.gen_test
async def test_a_reset_in_the_body_does_not_hide_the_status() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url)
        peer = await server.accept_tcp()
        await answer(peer, b"503 Busy", b"Content-Length: 10\r\n", iter([b"no"]), False)
        await asyncio.sleep(0.1)
        peer.reset()
        with pytest.raises(HandshakeRejectedError, match="503"):
            await connecting


@pytest.mark.gen_test
async def test_a_refusal_over_tls_keeps_its_status(tls: Tls) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except OSError:
            cut_off.set()
        writer.close()

    cut_off = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.server)
    url = f"wss://localhost:{server.sockets[0].getsockname()[1]}/"
    with pytest.raises(HandshakeRejectedError) as caught:
        await websocket_connect(HTTPRequest(url, ssl_options=tls.client, **FOR_EVER))
    await cut_off.wait()
    server.close()
    assert caught.value.headers["WWW-Authenticate"] == "Basic"
    assert caught.value.response is not None
    assert caught.value.response.body == b"x" * MOST


@pytest.mark.gen_test
async def test_a_gzip_body_is_left_alone_if_the_request_says_so() -> None:
    error = await refused(b"403 Forbidden", GZIP, iter([ZIPPED]), True, decompress_response=False)
    assert isinstance(error, HandshakeRejectedError)
    assert error.response is not None
    assert error.response.body == ZIPPED
    assert error.headers["Content-Encoding"] == "gzip"
    error = await refused(b"403 Forbidden", GZIP, iter([ZIPPED]), True)
    assert "Content-Encoding" not in error.headers
    assert error.headers["X-Consumed-Content-Encoding"] == "gzip"


@pytest.mark.gen_test
async def test_the_callbacks_of_a_request_see_the_answer() -> None:
    lines: list[str] = []
    pieces: list[bytes] = []
    callbacks = {"header_callback": lines.append, "streaming_callback": pieces.append}
    error = await refused(b"403 Forbidden", b"", endless(), False, **callbacks)
    assert lines[0] == "HTTP/1.1 403 Forbidden\r\n"
    assert b"".join(pieces) == b"x" * MOST
    assert isinstance(error, HandshakeRejectedError)
    assert error.response is not None
    assert error.response.body == b""


@pytest.mark.gen_test
async def test_a_callback_that_raises_does_not_hide_the_status(log: Log) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("of the application")

    for name in ("header_callback", "streaming_callback"):
        for headers, body in ((b"", b"no way"), (CHUNKED, b"2\r\nno\r\n0\r\n\r\n")):
            error = await refused(b"403 Forbidden", headers, iter([body]), True, **{name: fail})
            assert error.status == 403
    assert set(log.lines) == {"Uncaught exception"}


@pytest.mark.gen_test
async def test_no_answer_stays_what_it_was() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url)
        peer = await server.accept_tcp()
        await peer.receive_head()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        peer.close()
        # The second one before Tornado 6.6.
        with pytest.raises((HTTPStreamClosedError, StreamClosedError)):
            await connecting
