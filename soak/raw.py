"""One connection of a peer made by hand, client or server: its messages as the plan has them, split anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import random
import zlib

from soak.checks import Receiver
from soak.plans import TO_CLIENT, TO_SERVER, VIOLATIONS, Plan
from soak.process import Driver
from tests.peer import RawPeer
from tests.tls_wire import half_close
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT, close_payload


class Talk:
    """What a peer made by hand does from the end of the opening handshake on."""

    def __init__(self, driver: Driver, peer: RawPeer, plan: Plan, *, is_client: bool) -> None:
        self._peer = peer
        self._plan = plan
        self._is_client = is_client
        self._driver = driver
        self._sends = TO_SERVER if is_client else TO_CLIENT
        self._receiver = Receiver(plan, TO_CLIENT if is_client else TO_SERVER, driver.failures)
        self._choose = random.Random(f"{plan.number}/{is_client}")
        self._takes_more = plan.deflate and plan.takeover
        self._deflater = zlib.compressobj(wbits=-15)
        self._inflater = zlib.decompressobj(-15)
        self._changed = asyncio.Event()
        self._ended = False
        #: The payload of the close frame that came.
        self._closed_with: bytes | None = None
        self._has_sent_close = False
        self._pings: list[bytes] = []
        self._lock = asyncio.Lock()
        #: Frames that answer others, up to None; nothing stands for FIN. Reading does not wait for them, or two ends
        #: that send may wait for each other.
        self._answers: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def run(self) -> None:
        reading = asyncio.ensure_future(self._read())
        answering = asyncio.ensure_future(self._answer())
        try:
            # Whether an end comes too early shows in what the other end has received.
            with contextlib.suppress(ConnectionError):
                await self._send_all()
                await self._end()
            if self._plan.end == "reset":
                return
            await reading
            self._answers.put_nowait(None)
            await answering
        finally:
            # Before the socket is closed, which the loop watches for them.
            reading.cancel()
            answering.cancel()
            await asyncio.wait([reading, answering])
            if self._plan.end == "reset":
                self._peer.reset()
        self._check()

    # Sending

    async def _send(self, data: bytes) -> None:
        """Send ``data`` in pieces, cut anywhere."""
        cuts = self._choose.choice((0, 0, 1, 2, 4))
        ends = sorted(self._choose.randrange(len(data) + 1) for _ in range(cuts))
        async with self._lock:
            for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
                if start < end:
                    await self._peer.send(data[start:end])
                    await asyncio.sleep(0)

    async def _send_all(self) -> None:
        plan = self._plan
        answers = not self._is_client and not plan.streams
        gathered: list[bytes] = []
        for number in range(plan.messages if self._is_client else plan.last):
            if answers:
                await self._until(number + 1)
            if self._closed_with is not None or self._ended:
                return
            gathered += self._frames(plan.message(self._sends, number))
            if answers or self._choose.random() < 0.5:
                await self._send(b"".join(gathered))
                gathered = []
        await self._send(b"".join(gathered))

    def _frames(self, message: str | bytes) -> list[bytes]:
        opcode, payload = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        rsv = 0
        if self._plan.deflate and self._choose.random() < 0.8:
            rsv, payload = RSV1, self._deflated(payload)
        cuts = self._choose.choice((0, 0, 0, 1, 2, 5))
        ends = [*sorted(self._choose.randrange(len(payload) + 1) for _ in range(cuts)), len(payload)]
        frames = []
        start = 0
        for index, end in enumerate(ends):
            frames.append(
                self._peer.frame(
                    CONTINUATION if index else opcode,
                    payload[start:end],
                    rsv=0 if index else rsv,
                    fin=index == len(ends) - 1,
                )
            )
            start = end
            if self._choose.random() < 0.3:
                self._pings.append(b"%d" % len(self._pings))
                frames.append(self._peer.frame(PING, self._pings[-1]))
        return frames

    def _deflated(self, payload: bytes) -> bytes:
        if not self._takes_more:
            self._deflater = zlib.compressobj(wbits=-15)
        data = self._deflater.compress(payload) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        return data.removesuffix(b"\x00\x00\xff\xff")

    async def _send_close(self, payload: bytes) -> None:
        if not self._has_sent_close:
            self._has_sent_close = True
            await self._send(self._peer.frame(CLOSE, payload))

    async def _answer(self) -> None:
        with contextlib.suppress(ConnectionError):
            while (data := await self._answers.get()) is not None:
                if data:
                    await self._send(data)
                else:
                    half_close(self._peer)

    # Ending

    async def _end(self) -> None:
        plan, peer = self._plan, self._peer
        ours = "client" if self._is_client else "server"
        close = close_payload(plan.code, plan.reason) if plan.code else b""
        if not self._is_client or plan.end == f"close by {ours}":
            await self._until(plan.last)
        elif plan.end == "reset":
            # By then the server has opened it.
            await self._until(1)
        if plan.end in (f"close by {ours}", f"close by {ours} at once", "close and half-close"):
            await self._send_close(close)
        elif plan.end == "cut in a frame":
            data = peer.frame(BINARY, b"cut" * 100)
            await self._send(data[: self._choose.randrange(1, len(data))])
        elif plan.end == "violation":
            await self._send(self._violation())
        if plan.end in ("half-close", "close and half-close", "cut in a frame"):
            half_close(peer)

    def _violation(self) -> bytes:
        options = dict(VIOLATIONS[self._plan.number % len(VIOLATIONS)][0])
        return self._peer.frame(**options)

    # Receiving

    async def _until(self, count: int) -> None:
        """Wait for so many messages, or the end."""
        while self._receiver.count < count and not self._ended and self._closed_with is None:
            self._changed.clear()
            await self._changed.wait()

    async def _read(self) -> None:
        message: list[bytes] = []
        first = 0
        rsv = 0
        try:
            while (frame := await self._peer.receive()) is not None:
                self._driver.progress += 1
                if self._closed_with is not None:
                    self._driver.failures.add(self._plan, f"a frame behind the close frame: {frame.opcode}")
                elif frame.opcode == PING:
                    if self._plan.end != "no pong" and not self._has_sent_close:
                        self._answers.put_nowait(self._peer.frame(PONG, frame.payload))
                elif frame.opcode == PONG:
                    if frame.payload not in self._pings:
                        self._driver.failures.add(self._plan, f"a pong that nobody asked for: {frame.payload!r}")
                elif frame.opcode == CLOSE:
                    self._closed_with = frame.payload
                    self._changed.set()
                    self._answer_close(frame.payload)
                else:
                    if not message:
                        first, rsv = frame.opcode, frame.rsv
                    message.append(frame.payload)
                    if frame.fin:
                        self._take(first, rsv, b"".join(message))
                        message = []
                if self._plan.slow:
                    await asyncio.sleep(0.002)
        except (ConnectionError, AssertionError) as error:
            if isinstance(error, AssertionError) and self._plan.end not in ("reset", "half-close", "cut in a frame"):
                self._driver.failures.add(self._plan, str(error))
        finally:
            self._ended = True
            self._changed.set()

    def _answer_close(self, payload: bytes) -> None:
        # One that does not answer goes on reading.
        if self._plan.end in ("no answer", "no pong", "violation"):
            return
        if not self._has_sent_close:
            self._has_sent_close = True
            self._answers.put_nowait(self._peer.frame(CLOSE, payload))
        if not self._is_client:
            # The server is to close first (RFC 6455 section 7.1.1).
            self._answers.put_nowait(b"")

    def _take(self, opcode: int, rsv: int, payload: bytes) -> None:
        if rsv:
            if not self._takes_more:
                self._inflater = zlib.decompressobj(-15)
            payload = self._inflater.decompress(payload + b"\x00\x00\xff\xff")
        self._receiver.take(payload.decode() if opcode == TEXT else payload)
        self._changed.set()

    def _check(self) -> None:
        plan = self._plan
        self._receiver.end()
        if plan.end in ("half-close", "reset", "cut in a frame", "no pong"):
            return
        code = plan.violation_code if plan.end == "violation" else plan.code
        closed = self._closed_with
        got = None if not closed else int.from_bytes(closed[:2], "big")
        if closed is None or got != code:
            self._driver.failures.add(plan, f"a close frame with {code} has to come; {closed!r} came")
