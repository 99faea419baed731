"""An end frees the connection and the application's handler at once: the garbage collector may be off."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.conftest import Tls
from tests.peer import RawPeer, StallingEcho, opening_request, raw_client, tls_client, unanswered_client
from tests.support import Echo, serving, until
from tests.wire import CLOSE, PING, PONG, TEXT, Frame
from tornado_ws import Topics, WebSocketClosedError
from tornado_ws.transport.frame_log import logger as frame_logger

#: More than the buffers of two sockets take.
MUCH = "x" * 8_000_000


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """Cycles stay, and what is in them is found at the end."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def garbage() -> list[str]:
    """Return what of ours only the garbage collector would free."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        found = [type(found).__module__ + "." + type(found).__qualname__ for found in gc.garbage]
        return [name for name in found if name.startswith(("tornado_ws.", __name__))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


#: What `Freed` does not echo.
ORDERS = ("close", "raise", "abort", "write much")


class Freed(Echo):
    """Echoes what is no order."""

    references: list[weakref.ref[Any]]

    def open(self) -> None:
        self.references.append(weakref.ref(self))
        self.references.append(weakref.ref(self.ws_connection))

    def on_message(self, message: Any) -> Any:
        if message == "close":
            self.close(1000, "enough")
        elif message == "raise":
            raise ValueError("of the application")
        elif message == "abort":
            protocol: Any = self.ws_connection
            protocol._abort()
        elif message == "write much":
            self.write_message(MUCH)
        else:
            # A Future that has failed keeps its error, and that the frames of who asks for it: as in Tornado.
            with contextlib.suppress(WebSocketClosedError):
                self.write_message(message)

    def log_exception(self, *args: Any) -> None:
        """Log nothing: pytest keeps each record, and with it a traceback that refers to the handler."""


class Waiting(Freed):
    async def on_message(self, message: Any) -> None:
        await asyncio.sleep(0.01 if message == "wait" else 0)
        if message in ORDERS:
            super().on_message(message)
        else:
            with contextlib.suppress(WebSocketClosedError):
                await self.write_message(message)

    async def on_close(self) -> None:
        await asyncio.sleep(0)


class InParts(Freed):
    async def on_message_stream(self, stream: Any) -> None:
        message = await stream.read_all()
        if message in ORDERS:
            super().on_message(message)
            return
        async with self.write_stream() as writing:
            await writing.write(message)


class Stalling(Freed, StallingEcho):
    def open(self) -> None:
        Freed.open(self)
        StallingEcho.open(self)


async def our_close(client: RawPeer) -> None:
    await client.send_frame(TEXT, b"close")
    await client.answer_close()


async def their_close(client: RawPeer) -> None:
    await client.send_frame(CLOSE)


async def reset(client: RawPeer) -> None:
    client.reset()


async def violation(client: RawPeer) -> None:
    await client.send_frame(0x3)


async def too_big(client: RawPeer) -> None:
    await client.send_frame(TEXT, b"x" * 5000)


async def no_utf8(client: RawPeer) -> None:
    await client.send_frame(TEXT, b"\xff")


async def error(client: RawPeer) -> None:
    await client.send_frame(TEXT, b"raise")


async def abort(client: RawPeer) -> None:
    await client.send_frame(TEXT, b"abort")


async def unread(client: RawPeer) -> None:
    """End while messages, of which nothing is read, wait in the server."""
    await client.send_frame(TEXT, b"write much")
    await client.send_frame(PING)
    await asyncio.sleep(0.01)
    client.reset()


async def in_a_message(client: RawPeer) -> None:
    await client.send(client.frame(TEXT, b"a beginning", fin=False))
    client.reset()


async def while_busy(client: RawPeer) -> None:
    """End while a coroutine has still to answer."""
    await client.send_frame(TEXT, b"wait")
    await client.send_frame(TEXT, b"behind it")
    client.reset()


WAYS = [our_close, their_close, reset, violation, too_big, no_utf8, error, abort, unread, in_a_message, while_busy]


class Compressing(Freed):
    def get_compression_options(self) -> dict[str, Any]:
        return {}


class Offloading(Freed):
    def get_compression_options(self) -> dict[str, Any]:
        return {"offload_size": 1}


class Unchanged:
    """A codec that changes nothing."""

    def encode(self, value: Any) -> str:
        assert isinstance(value, str)
        return value

    def decode(self, message: str | bytes) -> str | bytes:
        return message


#: Handlers and settings, whose connections are made of different parts.
KINDS: dict[str, tuple[type[Freed], dict[str, Any]]] = {
    "plain": (Freed, {}),
    "coroutine": (Waiting, {}),
    "pings": (Freed, {"websocket_ping_interval": 30}),
    "compression": (Compressing, {}),
    "threads": (Offloading, {}),
    "parts": (InParts, {}),
    "stalling": (Stalling, {}),
    "limits": (
        Freed,
        {
            "websocket_message_rate_limit": 1000,
            "websocket_byte_rate_limit": 1 << 20,
            "websocket_write_limit": 1 << 24,
            "websocket_max_lifetime": 3600,
            "websocket_idle_timeout": 3600,
        },
    ),
    "close code": (Freed, {"websocket_error_close_code": 1011}),
    "codec": (Freed, {"websocket_codec": Unchanged()}),
}


async def use_and_end(client: RawPeer, way: Any) -> None:
    await client.send_frame(PING, b"p")
    assert await client.receive() == Frame(PONG, b"p")
    await client.send_frame(TEXT, b"hello")
    answer = await client.receive()
    assert answer is not None
    assert answer.opcode == TEXT
    await way(client)


@contextlib.asynccontextmanager
async def watched(handler: type[Freed], **settings: Any) -> AsyncIterator[str]:
    """Serve ``handler``, and see that what it has opened is freed."""
    references: list[weakref.ref[Any]] = []
    cls = type("OfThisTest", (handler,), {"references": references})
    async with serving(cls, websocket_max_message_size=4000, **settings) as url:
        yield url
        await until(lambda: references)
        await until(lambda: not any(reference() for reference in references))
        assert garbage() == []


@pytest.mark.gen_test
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", KINDS)
async def test_an_end_frees_the_handler(kind: str, way: Any) -> None:
    handler, settings = KINDS[kind]
    async with watched(handler, **settings) as url:
        extensions = "permessage-deflate" if handler in (Compressing, Offloading) else None
        async with raw_client(url, Sec_WebSocket_Extensions=extensions) as client:
            await use_and_end(client, way)


@pytest.mark.gen_test
@pytest.mark.parametrize("way", [our_close, their_close, reset, violation, abort], ids=lambda way: way.__name__)
async def test_an_end_of_tls_frees_the_handler(way: Any, tls: Tls) -> None:
    async with watched(Freed, ssl_options=tls.server) as url, tls_client(url, tls.client) as client:
        await use_and_end(client, way)


class Subscribed(Freed):
    topics: Topics

    async def open(self) -> None:  # type: ignore[override]
        super().open()
        await self.topics.subscribe(self, "t")

    def on_message(self, message: Any) -> Any:
        if message in ORDERS:
            super().on_message(message)
        else:
            self.topics.publish("t", message)


@pytest.mark.gen_test
@pytest.mark.parametrize("way", [our_close, their_close, reset, abort], ids=lambda way: way.__name__)
async def test_an_end_frees_a_subscriber(way: Any) -> None:
    async with Topics() as topics:
        handler = type("ToThese", (Subscribed,), {"topics": topics})
        async with watched(handler) as url, raw_client(url) as client:
            await use_and_end(client, way)


class Refusing(Freed):
    """Writes down what is asked before ``open``; some subprotocols are orders."""

    def prepare(self) -> None:
        self.references.append(weakref.ref(self))

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        if "raise" in subprotocols:
            raise ValueError("of the application")
        return "not offered" if "other" in subprotocols else None


@pytest.mark.gen_test
@pytest.mark.parametrize("end", ["FIN", "RST"])
async def test_who_has_gone_before_the_answer_leaves_nothing(end: str) -> None:
    async with watched(Refusing) as url, unanswered_client(url) as client:
        await client.send(opening_request(url))
        # The server finds both in one turn of the loop.
        if end == "FIN":
            client.half_close()
        else:
            client.reset()


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_WebSocket_Key": "no key"},
        {"Sec_WebSocket_Protocol": "raise"},
        {"Sec_WebSocket_Protocol": "other"},
    ],
    ids=lambda headers: "-".join(headers.values()),
)
async def test_a_refused_handshake_leaves_nothing(headers: dict[str, Any]) -> None:
    async with watched(Refusing) as url, raw_client(url, **headers) as client:
        assert client.status in (400, 500)


@pytest.mark.gen_test
async def test_an_end_frees_what_the_log_of_frames_knows(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, frame_logger.name)
    async with watched(Freed) as url, raw_client(url) as client:
        await use_and_end(client, their_close)
