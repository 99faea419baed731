"""What a client does with a server that breaks RFC 6455 or RFC 7692."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.conftest import Log
from tests.connection.violations import MASKED, MAX_MESSAGE_SIZE, VIOLATIONS, Violation, each
from tests.peer import RawPeer, frame, raw_pair
from tests.support import until
from tests.wire import BINARY, CLOSE, PING, PONG, RSV1, TEXT, Frame, deflated, inflated
from tornado_ws import WebSocketClientConnection, WebSocketClosedError
from tornado_ws.testing import expect

TABLE = each(*VIOLATIONS, MASKED)


def options(violation: Violation) -> dict[str, Any]:
    if not violation.deflate:
        return {"max_message_size": MAX_MESSAGE_SIZE}
    return {
        "max_message_size": MAX_MESSAGE_SIZE,
        "compression_options": {},
        "headers": {"Sec_WebSocket_Extensions": "permessage-deflate"},
    }


async def send_violation(peer: RawPeer, violation: Violation) -> None:
    before = peer.frame(TEXT, deflated(b"before"), rsv=RSV1) if violation.deflate else peer.frame(TEXT, b"before")
    await peer.send(before, violation.build(peer.frame), peer.frame(PING, b"no answer to this"))
    # Closing the socket with any of this unread would reset the connection, and the close frame be lost.
    await peer.send(*[peer.frame(BINARY, bytes(100))] * 3000)


async def check_answer(peer: RawPeer, violation: Violation) -> str:
    """See that the echo and the close frame arrive, and return the reason of the latter."""
    frames = [frame for frame in await peer.receive_rest() if frame != Frame(PONG)]
    echo = frames.pop(0)
    if violation.deflate:
        echo = Frame(TEXT, inflated(echo.payload)) if echo.rsv == RSV1 else echo
    assert echo == Frame(TEXT, b"before")
    assert [(frame.opcode, frame.payload[:2]) for frame in frames] == [(CLOSE, violation.code.to_bytes(2, "big"))]
    return frames[0].payload[2:].decode()


def check_log(peer: RawPeer, violation: Violation, log: Log) -> None:
    record = log.only()
    assert record.name == "tornado.general"
    assert record.levelno == (logging.DEBUG if violation.code == 1009 else logging.INFO)
    assert violation.says in record.getMessage()
    assert str(violation.code) in record.getMessage()


@pytest.mark.gen_test
@TABLE
@pytest.mark.rfc("6455-7.1.7-closed", "6455-7.1.7-logged", "6455-7.1.7-close-frame", "6455-7.1.7-nothing-more")
@pytest.mark.rfc("6455-10.7-validated", "6455-10.7-close-frame")
async def test_messages_before_a_violation_can_be_read_and_answered(violation: Violation, log: Log) -> None:
    async def read_and_answer(conn: WebSocketClientConnection) -> None:
        while (message := await conn.read_message()) is not None:
            await conn.write_message(message)

    async with raw_pair(**options(violation)) as (conn, peer):
        reading = asyncio.ensure_future(read_and_answer(conn))
        address = "{}:{}".format(*peer.sock.getsockname())
        await send_violation(peer, violation)
        reason = await check_answer(peer, violation)
        await reading
        assert (conn.close_code, conn.close_reason) == (violation.code, reason)
        assert reason
        with pytest.raises(WebSocketClosedError):
            conn.write_message("too late")
    check_log(peer, violation, log)
    assert address in log.only().getMessage()


@pytest.mark.gen_test
@TABLE
async def test_messages_before_a_violation_can_be_answered_in_the_callback(violation: Violation, log: Log) -> None:
    messages: list[Any] = []
    conns: list[WebSocketClientConnection] = []

    def on_message(message: str | bytes | None) -> None:
        messages.append(message)
        if message is not None:
            conns[0].write_message(message)

    async with raw_pair(on_message_callback=on_message, **options(violation)) as (conn, peer):
        conns.append(conn)
        await send_violation(peer, violation)
        reason = await check_answer(peer, violation)
        await until(lambda: len(messages) == 2)
        assert messages == ["before", None]
        assert (conn.close_code, conn.close_reason) == (violation.code, reason)
    check_log(peer, violation, log)


@pytest.mark.gen_test
@pytest.mark.rfc("6455-7.1.7-nothing-more")
async def test_nothing_that_follows_a_violation_is_looked_at_a_close_frame_neither() -> None:
    async with raw_pair() as (conn, peer):
        late = peer.frame(TEXT, b"late"), peer.frame(PING, b"?"), peer.frame(CLOSE, b"\x0f\xa0")
        await peer.send(peer.frame(0x3), *late)
        (answer,) = await peer.receive_rest()
        assert (answer.opcode, answer.payload[:2]) == (CLOSE, b"\x03\xea")
        assert await conn.read_message() is None
        assert conn.close_code == 1002


@pytest.mark.gen_test
async def test_many_messages_before_a_violation_are_all_answered_first() -> None:
    """An application that takes several turns of the loop for each message has its turn with the last one too."""

    async def read_and_answer(conn: WebSocketClientConnection) -> None:
        while (message := await conn.read_message()) is not None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await conn.write_message(message)

    async with raw_pair() as (conn, peer):
        reading = asyncio.ensure_future(read_and_answer(conn))
        await peer.send(*[peer.frame(TEXT, b"%d" % number) for number in range(300)], peer.frame(0x3))
        frames = await peer.receive_rest()
        await reading
    assert [frame.payload for frame in frames[:-1]] == [b"%d" % number for number in range(300)]
    assert frames[-1].opcode == CLOSE


@pytest.mark.gen_test
async def test_a_violation_does_not_wait_for_an_application_that_has_read_and_is_busy() -> None:
    async with raw_pair() as (conn, peer):
        await peer.send(peer.frame(TEXT, b"1"), peer.frame(TEXT, b"2"), peer.frame(0x3))
        await expect(conn, "1")
        await expect(conn, "2")
        assert [frame.opcode for frame in await peer.receive_rest()] == [CLOSE]
        assert conn.close_code == 1002
        assert await conn.read_message() is None


@pytest.mark.gen_test
async def test_messages_before_a_violation_stay_readable_until_they_are_read() -> None:
    async with raw_pair() as (conn, peer):
        await peer.send(peer.frame(TEXT, b"1"), peer.frame(TEXT, b"2"), peer.frame(0x3))
        await asyncio.sleep(0.1)
        await expect(conn, "1")
        await conn.write_message("1")
        await expect(conn, "2")
        await conn.write_message("2")
        assert await conn.read_message() is None
        assert [frame.opcode for frame in await peer.receive_rest()] == [TEXT, TEXT, CLOSE]


@pytest.mark.gen_test
async def test_a_violation_right_behind_the_101() -> None:
    early = frame(TEXT, b"early", masked=False) + frame(TEXT, b"x", masked=True)
    async with raw_pair(early=early) as (conn, peer):
        await expect(conn, "early")
        await conn.write_message("answer")
        assert await conn.read_message() is None
        assert conn.close_code == 1002
        assert [received.opcode for received in await peer.receive_rest()] == [TEXT, CLOSE]
