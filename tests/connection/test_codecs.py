"""Codecs: values in the place of messages, at both ends, and messages that do not decode."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from typing import Any

import msgpack
import msgspec
import pytest

from tests.conftest import Log
from tests.connection.test_offload import SIZE, Threads, threads
from tests.peer import Recording, raw_client, raw_pair
from tests.programs import ROOT
from tests.support import PATIENCE, connected, run_side_by_side, serving, until
from tests.wire import BINARY, CLOSE, RSV1, TEXT, Frame, close_payload, deflated
from tornado_ws import WebSocketHandler
from tornado_ws.codecs import JSONCodec, MsgspecCodec

__all__ = ["threads"]

VALUES: list[Any] = [{"a": [1, 2.5, None]}, ["ä", True], "text", 7]


class Answering(Recording):
    """Sends back the value that it gets."""

    def on_message(self, message: Any) -> Any:
        self.calls.append(message)
        return self.write_message(message)


class AnsweringInCoroutine(Answering):
    async def on_message(self, message: Any) -> None:
        await asyncio.sleep(0)
        await super().on_message(message)


class Order(msgspec.Struct):
    item: str
    count: int


@pytest.mark.gen_test
@pytest.mark.parametrize("handler", [Answering, AnsweringInCoroutine])
@pytest.mark.parametrize(
    ("codec", "opcode", "decode"),
    [
        ("json", TEXT, json.loads),
        ("orjson", TEXT, json.loads),
        ("msgspec", TEXT, json.loads),
        ("msgpack", BINARY, msgpack.unpackb),
        (MsgspecCodec(format="msgpack"), BINARY, msgpack.unpackb),
    ],
    ids=["json", "orjson", "msgspec", "msgpack", "an object"],
)
async def test_values_go_both_ways(handler: Any, codec: Any, opcode: int, decode: Any) -> None:
    calls: list[Any] = []
    async with serving(handler, calls=calls, websocket_codec=codec) as url:
        async with connected(url, codec=codec) as conn:
            for value in VALUES:
                await conn.write_message(value)
                answer: Any = await conn.read_message()
                assert answer == value
        async with raw_client(url) as client:
            # In one segment: what waits for a coroutine goes through the codec too.
            payload = b"[1]" if opcode == TEXT else msgpack.packb([1])
            await client.send(client.frame(opcode, payload) * 3)
            for _ in range(3):
                frame = await client.receive()
                assert isinstance(frame, Frame)
                assert frame.opcode == opcode
                assert decode(frame.payload) == [1]
    assert [call for call in calls if call != "open"][: len(VALUES)] == VALUES


@pytest.mark.gen_test
async def test_msgspec_checks_the_type() -> None:
    calls: list[Any] = []
    async with serving(Answering, calls=calls, websocket_codec=MsgspecCodec(Order)) as url:
        async with connected(url, codec=MsgspecCodec(Order)) as conn:
            await conn.write_message(Order("tea", 2))
            answer: Any = await conn.read_message()
            assert answer == Order("tea", 2)
        async with raw_client(url) as client:
            await client.send_frame(TEXT, b'{"item": "tea", "count": "two"}')
            assert await client.receive() == Frame(CLOSE, close_payload(1007, "message does not decode"))
    assert calls[1] == Order("tea", 2)


@pytest.mark.gen_test
@pytest.mark.parametrize("wrong", [b"{", b"[" * 100_000, b'"\\x00"'], ids=["cut", "deep", "escape"])
async def test_a_message_that_does_not_decode_ends_the_connection(wrong: bytes, log: Log) -> None:
    calls: list[Any] = []
    async with serving(Answering, calls=calls, websocket_codec="json") as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1") + client.frame(TEXT, wrong) + client.frame(TEXT, b"2"))
        assert await client.receive() == Frame(TEXT, b"1")
        assert await client.answer_close() == []
        await until(lambda: calls[-1][0] == "close" if isinstance(calls[-1], tuple) else False)
    assert calls == ["open", 1, ("close", 1007, "message does not decode")]
    line = log.only().getMessage()
    assert f"message of {len(wrong)} does not decode" in line
    assert line.isprintable()


@pytest.mark.gen_test
async def test_a_client_refuses_what_does_not_decode_and_null() -> None:
    for wrong in (b"{", b"null"):
        async with raw_pair(codec="json") as (conn, peer):
            await peer.send(peer.frame(TEXT, b'"before"') + peer.frame(TEXT, wrong))
            assert await conn.read_message() == "before"
            assert await conn.read_message() is None
            assert await peer.receive() == Frame(CLOSE, close_payload(1007, "message does not decode"))
            assert conn.close_code == 1007


@pytest.mark.gen_test
async def test_a_server_gets_null_as_none() -> None:
    calls: list[Any] = []
    async with serving(Answering, calls=calls, websocket_codec="json") as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"null")
        assert await client.receive() == Frame(TEXT, b"null")
    assert calls[1] is None


class Lenient(JSONCodec):
    """Tells of what does not decode, and goes on."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def undecodable(self, connection: Any, message: str | bytes, error: Exception) -> None:
        await asyncio.sleep(0)
        self.seen.append((message, type(error)))
        await connection.write_message({"wrong": str(message)})


@pytest.mark.gen_test
async def test_a_hook_decides_what_becomes_of_a_message_that_does_not_decode() -> None:
    codec = Lenient()
    async with serving(Answering, calls=[], websocket_codec=codec) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"{") + client.frame(TEXT, b"1"))
        assert await client.receive() == Frame(TEXT, b'{"wrong":"{"}')
        assert await client.receive() == Frame(TEXT, b"1")
    assert codec.seen == [("{", json.JSONDecodeError)]
    client_codec = Lenient()
    got: list[Any] = []
    async with raw_pair(codec=client_codec, on_message_callback=got.append) as (_, peer):
        await peer.send(peer.frame(TEXT, b"{") + peer.frame(TEXT, b"1"))
        await until(lambda: got == [1])


class Shouting:
    """A codec of an application's own, which says nothing of ``binary``."""

    def encode(self, value: str) -> bytes:
        return value.upper().encode()

    def decode(self, message: str | bytes) -> Any:
        return bytes(message, "utf-8") if isinstance(message, str) else message


@pytest.mark.gen_test
async def test_bytes_of_a_codec_of_ones_own_are_binary_and_what_it_cannot_encode_is_raised() -> None:
    async with raw_pair(codec=Shouting()) as (conn, peer):
        await conn.write_message("x")
        assert await peer.receive() == Frame(BINARY, b"X")
        with pytest.raises(AttributeError):
            conn.write_message(7)
        await conn.write_message("y")
        assert await peer.receive() == Frame(BINARY, b"Y")
    async with raw_pair(codec="json") as (conn, peer):
        with pytest.raises(TypeError):
            conn.write_message(object())


@pytest.mark.gen_test
async def test_a_value_from_another_thread_is_encoded_once() -> None:
    async with raw_pair(codec="json") as (conn, peer):
        run_side_by_side([threading.Thread(target=conn.write_message_threadsafe, args=({"a": 1},))])
        assert await peer.receive() == Frame(TEXT, b'{"a":1}')
    handlers: list[Any] = []

    class Kept(WebSocketHandler):
        websocket_codec = "json"

        def open(self) -> None:
            handlers.append(self)

    async with serving(Kept) as url, raw_client(url) as client:
        await until(lambda: handlers)
        run_side_by_side([threading.Thread(target=handlers[0].write_message_threadsafe, args=({"a": 1},))])
        assert await client.receive() == Frame(TEXT, b'{"a":1}')


@pytest.mark.gen_test
async def test_text_that_stays_bytes(threads: Threads) -> None:
    class Undecoded(Answering):
        websocket_decode_text = False

        def on_message(self, message: Any) -> None:
            self.calls.append(message)

        def get_compression_options(self) -> dict[str, Any]:
            return {"offload_size": SIZE}

    calls: list[Any] = []
    large = "lärge ".encode() * 1000
    extensions: Any = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    async with serving(Undecoded, calls=calls) as url, raw_client(url, **extensions) as client:
        await client.send_frame(TEXT, "ä".encode())
        await until(lambda: len(calls) == 2)
        await client.send(client.frame(TEXT, deflated(large), rsv=RSV1))
        # A thread inflates it.
        await until(lambda: threads.waiting)
        threads.finish()
        await until(lambda: len(calls) == 3)
        await client.send(client.frame(TEXT, deflated(large + b"\xff"), rsv=RSV1))
        await until(lambda: threads.waiting)
        threads.finish()
        await until(lambda: len(calls) == 4)
    assert calls[:3] == ["open", "ä".encode(), large]
    assert calls[3][1] == 1007


@pytest.mark.gen_test
async def test_a_codec_gets_text_as_bytes_where_that_is_asked_for() -> None:
    async with raw_pair(codec=Shouting(), decode_text=False) as (conn, peer):
        await peer.send_frame(TEXT, b"x")
        assert await conn.read_message() == b"x"


class Noting(JSONCodec):
    def __init__(self) -> None:
        self.seen: list[str | bytes] = []

    def decode(self, message: str | bytes) -> Any:
        self.seen.append(message)
        return super().decode(message)


@pytest.mark.gen_test
@pytest.mark.parametrize("decodes", [True, False])
async def test_replaced_steps_go_through_the_codec(decodes: bool) -> None:
    """``_handle_message`` that somebody has replaced still ends at the codec."""
    calls: list[Any] = []
    seen: list[Any] = []

    class Replacing(Answering):
        def get_websocket_protocol(self) -> Any:
            protocol: Any = super().get_websocket_protocol()
            handle = protocol._handle_message

            def handle_and_show(opcode: int, data: bytes) -> Any:
                seen.append(data)
                return handle(opcode, data)

            protocol._handle_message = handle_and_show
            return protocol

    codec = Noting()
    settings: Any = {"websocket_codec": codec, "websocket_decode_text": decodes}
    async with serving(Replacing, calls=calls, **settings) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"[1]")
        assert await client.receive() == Frame(TEXT, b"[1]")
    assert seen[0] == b"[1]"
    assert codec.seen == ["[1]" if decodes else b"[1]"]
    assert calls[1] == [1]


def test_the_example_is_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "examples/codecs/orders.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.splitlines() == ["2 x tea: 6", "1 x cake: 5", "closed with 1007: message does not decode"]


@pytest.mark.parametrize("wrong", ["xml", 7, object(), JSONCodec, True])
def test_a_wrong_codec_is_told(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"websocket_codec is .*; it has to be None, one of 'json', "):
        type("Wrong", (WebSocketHandler,), {"websocket_codec": wrong})
    with pytest.raises(ValueError, match="format is 'xml'; it has to be 'json' or 'msgpack'"):
        MsgspecCodec(format="xml")
    with pytest.raises(ValueError, match="websocket_decode_text is 1; it has to be True or False"):
        type("Wrong", (WebSocketHandler,), {"websocket_decode_text": 1})


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(ImportError, match=r"needs msgspec: pip install 'tornado_ws\[codecs\]'"):
        MsgspecCodec()
