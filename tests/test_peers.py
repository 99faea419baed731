"""Our server and our client against other people's, message by message."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from tornado.httpclient import HTTPError
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

import tornado_ws
from tests.npm import installed_package
from tests.peers import REFUSAL_HEADER, Closed, Deflate, Options, Peer, Refused, Theirs
from tests.peers.node_ws import VERSION, NodeWs
from tests.peers.python_websockets import PythonWebsockets

pytestmark = pytest.mark.gen_test

PEERS: dict[str, Peer] = {"node-ws": NodeWs(), "websockets": PythonWebsockets()}
#: The part that the peer plays.
ROLES = ("client", "server")


@pytest.fixture(params=list(PEERS))
def peer(request: pytest.FixtureRequest) -> Peer:
    found = PEERS[request.param]
    if isinstance(found, NodeWs):
        # Here and not at its first use, where it would be on the clock of a test.
        installed_package("ws", VERSION)
    return found


@pytest.fixture(params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# Our ends


class Ours:
    """Our end of an open connection, with the face of theirs."""

    def __init__(self, connection: tornado_ws.WebSocketHandler | tornado_ws.WebSocketClientConnection) -> None:
        self.connection = connection
        self.messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.pings: asyncio.Queue[bytes] = asyncio.Queue()
        self.pongs: asyncio.Queue[bytes] = asyncio.Queue()

    @property
    def subprotocol(self) -> str:
        return self.connection.selected_subprotocol or ""

    async def send(self, message: str | bytes) -> None:
        await self.connection.write_message(message, binary=isinstance(message, bytes))

    async def receive(self) -> str | bytes | None:
        return await self.messages.get()

    async def ping(self, payload: bytes) -> None:
        self.connection.ping(payload)
        assert await self.pongs.get() == payload

    def close(self, code: int | None, reason: str | None) -> None:
        self.connection.close(code, reason)

    async def closed(self) -> Closed:
        assert await self.receive() is None
        return Closed(self.connection.close_code, self.connection.close_reason)


class OurClient(Ours):
    connection: tornado_ws.WebSocketClientConnection

    async def receive(self) -> str | bytes | None:
        return await self.connection.read_message()


class Handler(tornado_ws.WebSocketHandler):
    def initialize(self, opened: asyncio.Future[Ours], deflate: bool, subprotocols: list[str]) -> None:
        self.opened = opened
        self.deflate = deflate
        self.known_subprotocols = subprotocols

    def get_compression_options(self) -> dict[str, Any] | None:
        return {} if self.deflate else None

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return next((name for name in self.known_subprotocols if name in subprotocols), None)

    def open(self) -> None:
        self.ours = Ours(self)
        self.opened.set_result(self.ours)

    def on_message(self, message: str | bytes) -> None:
        self.ours.messages.put_nowait(message)

    def on_ping(self, data: bytes) -> None:
        self.ours.pings.put_nowait(data)

    def on_pong(self, data: bytes) -> None:
        self.ours.pongs.put_nowait(data)

    def on_close(self) -> None:
        self.ours.messages.put_nowait(None)


class Refusing(tornado_ws.WebSocketHandler):
    def prepare(self) -> None:
        self.set_status(401)
        self.set_header(*REFUSAL_HEADER)
        self.finish()


@asynccontextmanager
async def our_server(**arguments: Any) -> AsyncIterator[tuple[str, asyncio.Future[Ours]]]:
    opened: asyncio.Future[Ours] = asyncio.get_running_loop().create_future()
    arguments = {"opened": opened, "deflate": False, "subprotocols": [], **arguments}
    server = HTTPServer(Application([("/", Handler, arguments), ("/private", Refusing)]))
    sock, port = bind_unused_port()
    server.add_socket(sock)
    try:
        yield f"ws://127.0.0.1:{port}/", opened
    finally:
        server.stop()
        await server.close_all_connections()


@asynccontextmanager
async def connected(
    peer: Peer,
    role: str,
    options: Options = Options(),  # noqa: B008
    *,
    deflate: bool = False,
    subprotocols: list[str] | None = None,
) -> AsyncIterator[tuple[Ours, Theirs]]:
    """Connect the peer in its ``role``, and us in the other; ``deflate`` and ``subprotocols`` are ours."""
    if role == "client":
        async with (
            our_server(deflate=deflate, subprotocols=subprotocols or []) as (url, opened),
            peer.connect(url, options) as theirs,
        ):
            ours = await opened
            yield ours, theirs
            ours.connection.close()
    else:
        async with peer.serve(options) as server:
            connection = await tornado_ws.websocket_connect(
                server.url, compression_options={} if deflate else None, subprotocols=subprotocols
            )
            ours = OurClient(connection)
            connection.on_ping = lambda data: ours.pings.put_nowait(data)  # type: ignore[method-assign]
            connection.on_pong = lambda data: ours.pongs.put_nowait(data)  # type: ignore[method-assign]
            yield ours, await server.accepted()
            connection.close()


# Messages

_NOISE = random.Random(7692)

MESSAGES: dict[str, str | bytes] = {
    "text": "Grüße, 世界 🎈",
    "text again": "Grüße, 世界 🎈",
    "empty text": "",
    "empty binary": b"",
    "every byte": bytes(range(256)),
    "125 bytes": "a" * 125,
    "126 bytes": "b" * 126,
    "65535 bytes": b"c" * 65535,
    "65536 bytes": b"d" * 65536,
    "1 MiB of text": "Ωμέγα " * (2**20 // 11),
    "1 MiB of noise": _NOISE.randbytes(2**20),
    "text at the end": "Grüße, 世界 🎈",
}


class Compression(NamedTuple):
    ours: bool
    theirs: Deflate | None
    #: The parameters that the 101 has to name; None for no extension at all.
    agreed: set[str] | None


COMPRESSION = {
    "off": Compression(ours=False, theirs=None, agreed=None),
    "ours only": Compression(ours=True, theirs=None, agreed=None),
    "theirs only": Compression(ours=False, theirs=Deflate(), agreed=None),
    "takeover": Compression(ours=True, theirs=Deflate(), agreed=set()),
    "no takeover": Compression(
        ours=True,
        theirs=Deflate(no_context_takeover=True),
        agreed={"server_no_context_takeover", "client_no_context_takeover"},
    ),
    "small windows": Compression(
        ours=True,
        theirs=Deflate(max_window_bits=10),
        agreed={"server_max_window_bits=10", "client_max_window_bits=10"},
    ),
}


@pytest.fixture(params=list(COMPRESSION.values()), ids=list(COMPRESSION))
def compression(request: pytest.FixtureRequest) -> Compression:
    found: Compression = request.param
    return found


async def test_messages_both_ways(peer: Peer, role: str, compression: Compression) -> None:
    async with connected(peer, role, Options(deflate=compression.theirs), deflate=compression.ours) as (ours, theirs):
        name, *parameters = [part.strip() for part in theirs.extensions.split(";")]
        if compression.agreed is None:
            assert theirs.extensions == ""
        else:
            assert name == "permessage-deflate"
            takeover = {parameter for parameter in parameters if parameter.endswith("_takeover")}
            assert compression.agreed <= set(parameters)
            assert takeover <= compression.agreed
        # All on one connection, or there would be no context to take over.
        for case, message in MESSAGES.items():
            await theirs.send(message)
            received = await ours.receive()
            assert received == message, case
            assert type(received) is type(message), case
            await ours.send(message)
            received = await theirs.receive()
            assert received == message, case
            assert type(received) is type(message), case


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        pytest.param(["Grüße, ".encode(), "世界".encode()], True, id="text"),
        pytest.param(["€".encode()[:1], "€".encode()[1:2], "€".encode()[2:]], True, id="text cut in a character"),
        pytest.param([b"", b"", b""], True, id="empty"),
        pytest.param([b"", b"last"], False, id="empty at first"),
        pytest.param([bytes([n]) * 1000 for n in range(100)], False, id="a hundred"),
        pytest.param([_NOISE.randbytes(2**19), _NOISE.randbytes(2**19)], False, id="large"),
    ],
)
@pytest.mark.parametrize("deflate", [None, Deflate()], ids=["plain", "deflated"])
async def test_fragments_with_a_ping_between(
    peer: Peer, role: str, deflate: Deflate | None, parts: list[bytes], text: bool
) -> None:
    whole = b"".join(parts)
    async with connected(peer, role, Options(deflate=deflate), deflate=deflate is not None) as (ours, theirs):
        await theirs.send_fragments(parts, text=text, ping=b"between")
        assert await ours.receive() == (whole.decode() if text else whole)
        assert await ours.pings.get() == b"between"
        await theirs.send("after")
        assert await ours.receive() == "after"


async def test_pings_both_ways(peer: Peer, role: str) -> None:
    async with connected(peer, role) as (ours, theirs):
        for payload in (b"payload", b"", b"\x00\xff", b"p" * 125):
            await theirs.ping(payload)
            assert await ours.pings.get() == payload
            await ours.ping(payload)
        assert ours.pongs.empty()


# Opening handshake


@pytest.mark.parametrize(
    ("offered", "known", "selected"),
    [(["chat.v2", "chat.v1"], ["chat.v1"], "chat.v1"), (["chat.v2", "chat.v1"], ["chat.v1", "chat.v2"], None)],
    ids=["one in common", "two in common"],
)
async def test_subprotocol(peer: Peer, role: str, offered: list[str], known: list[str], selected: str | None) -> None:
    theirs_offer = role == "client"
    async with connected(
        peer,
        role,
        Options(subprotocols=offered if theirs_offer else known),
        subprotocols=known if theirs_offer else offered,
    ) as (ours, theirs):
        assert ours.subprotocol == theirs.subprotocol
        # Where there is a choice it is the server's, and a server may go by either list.
        assert ours.subprotocol in known if selected is None else ours.subprotocol == selected


@pytest.mark.parametrize(
    ("peer", "role"),
    # Not with websockets as the server, which refuses a client that offers none of what it has.
    [("node-ws", "server"), ("node-ws", "client"), ("websockets", "client")],
    indirect=True,
)
async def test_no_subprotocol_offered(peer: Peer, role: str) -> None:
    theirs_offer = role == "client"
    async with connected(
        peer,
        role,
        Options(subprotocols=[] if theirs_offer else ["chat.v1"]),
        subprotocols=["chat.v1"] if theirs_offer else [],
    ) as (ours, theirs):
        assert (ours.subprotocol, theirs.subprotocol) == ("", "")


@pytest.mark.parametrize(
    ("peer", "role"),
    # Not with ws as the client, which takes an answer without any of its subprotocols for a failure.
    [("node-ws", "server"), ("websockets", "server"), ("websockets", "client")],
    indirect=True,
)
async def test_subprotocol_that_the_server_does_not_know(peer: Peer, role: str) -> None:
    ours_offer = role == "server"
    async with connected(
        peer,
        role,
        Options(subprotocols=[] if ours_offer else ["chat.v3"]),
        subprotocols=["chat.v3"] if ours_offer else [],
    ) as (ours, theirs):
        assert (ours.subprotocol, theirs.subprotocol) == ("", "")


@pytest.mark.parametrize("status", [401, 403, 404, 503])
async def test_refusal_by_the_peer(peer: Peer, status: int) -> None:
    async with peer.serve(Options(refuse=status)) as server:
        with pytest.raises(HTTPError) as raised:
            await tornado_ws.websocket_connect(server.url)
        assert raised.value.code == status
        assert isinstance(raised.value, tornado_ws.HandshakeError)
        assert raised.value.status == status
        name, value = REFUSAL_HEADER
        assert raised.value.headers[name] == value


@pytest.mark.parametrize(("path", "status"), [("private", 401), ("nowhere", 404)])
async def test_refusal_by_us(peer: Peer, path: str, status: int) -> None:
    async with our_server() as (url, opened):
        with pytest.raises(Refused) as raised:
            async with peer.connect(url + path, Options()):
                pass
        assert raised.value.status == status
        assert not opened.done()


# Closing handshake

CLOSES = [
    (1000, ""),
    (1000, "done"),
    (1001, "going away"),
    (1003, "no binary, please"),
    (1011, "our fault"),
    (1014, "bad gateway"),
    (3000, ""),
    (4001, "Grüße, 世界 🎈"),
    (4999, "r" * 123),
]


@pytest.mark.parametrize(("code", "reason"), CLOSES, ids=[f"{code}-{len(reason)}" for code, reason in CLOSES])
async def test_close_by_the_peer(peer: Peer, role: str, code: int, reason: str) -> None:
    async with connected(peer, role) as (ours, theirs):
        await theirs.close(code, reason)
        closed = await ours.closed()
        assert closed.code == code
        assert (closed.reason or "") == reason
        assert (await theirs.closed()).code == code


@pytest.mark.parametrize(("code", "reason"), CLOSES, ids=[f"{code}-{len(reason)}" for code, reason in CLOSES])
async def test_close_by_us(peer: Peer, role: str, code: int, reason: str) -> None:
    async with connected(peer, role) as (ours, theirs):
        ours.close(code, reason or None)
        assert await theirs.closed() == Closed(code, reason)
        assert (await ours.closed()).code == code


async def test_close_without_a_code_by_us(peer: Peer, role: str) -> None:
    async with connected(peer, role) as (ours, theirs):
        ours.close(None, None)
        # 1005 is the name of a code that is not there (RFC 6455 section 7.4.1).
        assert await theirs.closed() == Closed(1005, "")
        assert await ours.closed() == Closed(None, None)


# The API of `websockets` has no such close.
@pytest.mark.parametrize("peer", ["node-ws"], indirect=True)
async def test_close_without_a_code_by_the_peer(peer: Peer, role: str) -> None:
    async with connected(peer, role) as (ours, theirs):
        await theirs.close(None, "")
        assert await ours.closed() == Closed(None, None)
        assert await theirs.closed() == Closed(1005, "")


async def test_messages_before_the_close_arrive(peer: Peer, role: str) -> None:
    async with connected(peer, role) as (ours, theirs):
        for number in range(100):
            await theirs.send(f"message {number}")
        # The library waits in close() for the answer, which may wait in turn until its messages are read.
        closing = asyncio.ensure_future(theirs.close(1000, ""))
        assert [await ours.receive() for _ in range(100)] == [f"message {number}" for number in range(100)]
        assert (await ours.closed()).code == 1000
        await closing
