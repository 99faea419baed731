"""What a server does with a client that breaks RFC 6455 or RFC 7692."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.conftest import Log
from tests.connection.violations import MAX_MESSAGE_SIZE, UNMASKED, VIOLATIONS, Violation, each
from tests.peer import Recording, frame, raw_client
from tests.support import serving, until
from tests.wire import BINARY, CLOSE, PING, RSV1, TEXT, Frame, deflated, inflated

DEFLATE = "permessage-deflate"


class DeflatingRecording(Recording):
    def get_compression_options(self) -> dict[str, Any]:
        return {}


@pytest.mark.gen_test
@each(*VIOLATIONS, UNMASKED)
@pytest.mark.rfc("6455-7.1.7-closed", "6455-7.1.7-logged", "6455-7.1.7-close-frame", "6455-7.1.7-nothing-more")
@pytest.mark.rfc("6455-10.7-validated", "6455-10.7-close-frame")
async def test_a_violation_is_answered_logged_and_told_to_on_close(violation: Violation, log: Log) -> None:
    calls: list[Any] = []
    offer: dict[str, Any] = {"Sec_WebSocket_Extensions": DEFLATE} if violation.deflate else {}
    async with (
        serving(DeflatingRecording, calls=calls, websocket_max_message_size=MAX_MESSAGE_SIZE) as url,
        raw_client(url, **offer) as client,
    ):
        assert client.header("Sec-WebSocket-Extensions") == (DEFLATE if violation.deflate else None)
        before = (
            client.frame(TEXT, deflated(b"before"), rsv=RSV1) if violation.deflate else client.frame(TEXT, b"before")
        )
        await client.send(before, violation.build(client.frame), client.frame(PING, b"no answer to this"))
        # Closing the socket with any of this unread would reset the connection, and the close frame be lost.
        await client.send(*[client.frame(BINARY, bytes(100))] * 3000)

        frames = [frame for frame in await client.receive_rest() if frame.opcode != 0xA or frame.payload]
        echo = frames.pop(0)
        if violation.deflate:
            echo = Frame(TEXT, inflated(echo.payload)) if echo.rsv == RSV1 else echo
        assert echo == Frame(TEXT, b"before")
        assert [(frame.opcode, frame.payload[:2]) for frame in frames] == [(CLOSE, violation.code.to_bytes(2, "big"))]
        reason = frames[0].payload[2:].decode()
        assert reason
        await until(lambda: len(calls) == 3)
    assert calls == ["open", "before", ("close", violation.code, reason)]

    record = log.only()
    assert record.name == "tornado.general"
    assert record.levelno == (logging.DEBUG if violation.code == 1009 else logging.INFO)
    assert "127.0.0.1" in record.getMessage()
    assert violation.says in record.getMessage()
    assert str(violation.code) in record.getMessage()


@pytest.mark.gen_test
async def test_messages_before_a_violation_are_handled_by_a_slow_coroutine_first() -> None:
    calls: list[Any] = []

    class Slow(Recording):
        async def on_message(self, message: str | bytes) -> None:
            await asyncio.sleep(0.02)
            self.calls.append(message)
            self.write_message(message)

    async with serving(Slow, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1"), client.frame(TEXT, b"2"), client.frame(0x3))
        assert [frame.opcode for frame in await client.receive_rest()] == [TEXT, TEXT, CLOSE]
        await until(lambda: len(calls) == 4)
    assert calls[:3] == ["open", "1", "2"]
    assert calls[3][:2] == ("close", 1002)


@pytest.mark.gen_test
async def test_a_violation_waits_for_open() -> None:
    calls: list[Any] = []

    class Slow(Recording):
        async def open(self) -> None:  # type: ignore[override]
            await asyncio.sleep(0.02)
            self.calls.append("open")
            self.write_message("welcome")

    async with serving(Slow, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(0x3)
        assert [frame.opcode for frame in await client.receive_rest()] == [TEXT, CLOSE]
        await until(lambda: len(calls) == 2)
    assert calls[1][:2] == ("close", 1002)


@pytest.mark.gen_test
async def test_a_violation_after_our_close_frame_gets_no_second_one(log: Log) -> None:
    calls: list[Any] = []

    class Closing(Recording):
        def on_message(self, message: str | bytes) -> None:
            self.close(4000)

    async with serving(Closing, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"close"), client.frame(0x3))
        assert await client.receive_rest() == [Frame(CLOSE, b"\x0f\xa0")]
        await until(lambda: len(calls) == 2)
    assert calls[1][:2] == ("close", 1002)
    assert "reserved opcode" in log.only().getMessage()


@pytest.mark.gen_test
@pytest.mark.rfc("6455-7.1.7-nothing-more")
async def test_nothing_that_follows_a_violation_is_looked_at_a_close_frame_neither() -> None:
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url, raw_client(url) as client:
        late = client.frame(TEXT, b"late"), client.frame(PING, b"?"), client.frame(CLOSE, b"\x0f\xa0")
        await client.send(client.frame(0x3), *late)
        (answer,) = await client.receive_rest()
        assert (answer.opcode, answer.payload[:2]) == (CLOSE, b"\x03\xea")
        await until(lambda: len(calls) == 2)
    assert calls[1][:2] == ("close", 1002)


@pytest.mark.gen_test
async def test_what_follows_a_close_frame_is_no_violation(log: Log) -> None:
    """Section 5.5.1: data after a close frame is not looked at any more."""
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(CLOSE, b"\x03\xe8"), client.frame(0x3), client.frame(TEXT, b"too late"))
        assert await client.receive_rest() == [Frame(CLOSE, b"\x03\xe8")]
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 1000, None)]
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_violation_in_the_same_segment_as_the_opening_handshake() -> None:
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url:
        early = frame(TEXT, b"early", masked=True) + frame(TEXT, b"x", masked=False)
        async with raw_client(url, early=early) as client:
            assert [received.opcode for received in await client.receive_rest()] == [TEXT, CLOSE]
            await until(lambda: len(calls) == 3)
    assert calls[:2] == ["open", "early"]
    assert calls[2][:2] == ("close", 1002)
