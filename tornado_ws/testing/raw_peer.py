"""One end of a connection, made by hand: bytes on a plain socket, so that nothing in them is right unless a test made
it so.

Nothing is read from the socket but by `RawPeer.receive` and the like: a peer that calls none is one that has stalled.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Any

from tornado_ws.escaping import shown
from tornado_ws.testing.frames import CLOSE, Frame, frame, xor
from tornado_ws.testing.violations import Violation, violation_of

#: Bytes that the socket of a peer takes which is to stall soon.
SMALL_BUFFER = 16384


class RawPeer:
    """One end of a WebSocket connection; `raw_client` and `raw_server` make them.

    A reset by the other end is a ConnectionError out of any method. What a method finds wrong with what came is an
    AssertionError. ``head`` is the HTTP message of the opening handshake that came, ``sock`` the socket.
    """

    def __init__(self, sock: socket.socket, *, is_client: bool) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.head = ""
        #: The masking keys of the frames that were received.
        self.masks: list[bytes] = []
        self._is_client = is_client
        self._unread = b""

    @property
    def status(self) -> int:
        """The status of the answer that came."""
        return int(self.head.split()[1])

    def header(self, name: str) -> str | None:
        """Return a header of the HTTP message that came, None where there is none of that name."""
        for line in self.head.split("\r\n")[1:]:
            field, _, value = line.partition(":")
            if field.lower() == name.lower():
                return value.strip()
        return None

    # Sending

    def frame(self, opcode: int, payload: bytes = b"", **options: Any) -> bytes:
        """Return a frame as this side has to send it, but for what ``options`` of `frames.frame` make wrong."""
        return frame(opcode, payload, **{"masked": self._is_client, **options})

    async def send(self, *chunks: bytes) -> None:
        """Send ``chunks`` with one call, on loopback in one segment if they are below 64 KiB."""
        await asyncio.get_running_loop().sock_sendall(self.sock, b"".join(chunks))

    async def send_frame(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        """Send what `frame` makes."""
        await self.send(self.frame(opcode, payload, **options))

    async def send_slowly(self, data: bytes, *, size: int = 1, pause: float = 0.01) -> None:
        """Send ``data`` in pieces of ``size`` bytes (1), with ``pause`` seconds (0.01) after each."""
        _check_pieces(size, pause)
        for start in range(0, len(data), size):
            await self.send(data[start : start + size])
            await asyncio.sleep(pause)

    async def violate(self, violation: str | Violation) -> Violation:
        """Break the protocol; returns the `Violation`, whose ``code`` is the close code that has to be answered.

        :param violation: its name, one of `violations.VIOLATIONS`, or the object.
        :raises ValueError: for any other name.
        """
        found = violation_of(violation)
        await self.send(found.build(self.frame))
        return found

    # Receiving

    async def receive_bytes(self, most: int = 1 << 18) -> bytes:
        """Receive what there is, ``most`` bytes of it; nothing at the end of the connection."""
        data, self._unread = self._unread[:most], self._unread[most:]
        return data or await asyncio.get_running_loop().sock_recv(self.sock, most)

    async def receive_slowly(self, *, size: int = 1, pause: float = 0.01) -> bytes:
        """Receive ``size`` bytes (1) at a time, with ``pause`` seconds (0.01) after each, and return all at the end."""
        _check_pieces(size, pause)
        received = bytearray()
        while data := await self.receive_bytes(size):
            received += data
            await asyncio.sleep(pause)
        return bytes(received)

    def has_unread(self, timeout: float = 0) -> bool:
        """Whether there is something to be received, or the end; waits without the loop, as while a callback blocks."""
        return bool(self._unread or select.select([self.sock], [], [], timeout)[0])

    async def receive_head(self) -> None:
        """Receive the head of an HTTP message, and keep what came behind it."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = await self.receive_bytes()
            _check(more, f"connection ended inside an HTTP head: {shown(data)}")
            data += more
        head, _, self._unread = data.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")

    async def receive(self, masked: bool | None = None) -> Frame | None:
        """Receive a frame; None at the end of the connection, which may not come inside a frame.

        It is to be ``masked``, by default if this is a server. This waits for as long as nothing comes; `expect` does
        not.
        """
        if masked is None:
            masked = not self._is_client
        buffer = bytearray()

        async def more(size: int) -> bool:
            while len(buffer) < size:
                data = await self.receive_bytes()
                if not data:
                    _check(not buffer, f"connection ended inside a frame: {shown(bytes(buffer[:20]))}")
                    return False
                buffer.extend(data)
            return True

        if not await more(2):
            return None
        first, second = buffer[0], buffer[1]
        _check(bool(second & 0x80) is masked, "clients have to mask and servers may not")
        header = 2 + {126: 2, 127: 8}.get(second & 0x7F, 0)
        await more(header)
        length = second & 0x7F if header == 2 else int.from_bytes(buffer[2:header], "big")
        _check(header == (2 if length < 126 else 4 if length < 0x10000 else 10), "length is not in its shortest form")
        end = header + (4 if masked else 0)
        await more(end + length)
        payload = bytes(buffer[end : end + length])
        self._unread = bytes(buffer[end + length :])
        if masked:
            self.masks.append(bytes(buffer[header:end]))
            payload = xor(payload, self.masks[-1])
        return Frame(first & 0xF, payload, bool(first & 0x80), first & 0x70)

    async def receive_rest(self) -> list[Frame]:
        """Receive all frames up to the end of the connection."""
        frames = []
        while (received := await self.receive()) is not None:
            frames.append(received)
        return frames

    # Ending

    async def answer_close(self) -> list[Frame]:
        """Receive frames up to a close frame, echo that, and return those before it."""
        frames = []
        while (received := await self.receive()) is not None and received.opcode != CLOSE:
            frames.append(received)
        if received is None:
            raise AssertionError("no close frame")
        await self.send_frame(CLOSE, received.payload)
        return frames

    async def is_cut_off(self, data: bytes, timeout: float = 60.0) -> bool:
        """Send ``data`` over and over until a reset says that nobody has the socket any more."""
        deadline = asyncio.get_running_loop().time() + timeout
        while asyncio.get_running_loop().time() < deadline:
            try:
                await self.send(data)
            except ConnectionError:
                return True
            await asyncio.sleep(0.005)
        return False

    def half_close(self) -> None:
        """Send FIN, and go on to receive."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close the socket, without a close frame."""
        self.sock.close()


def _check(condition: object, text: str) -> None:
    # Not an assert, which python -O leaves out.
    if not condition:
        raise AssertionError(text)


def _check_pieces(size: int, pause: float) -> None:
    if size < 1 or not pause >= 0:
        raise ValueError(f"size is {size!r} and pause {pause!r}; allowed are bytes from 1 and seconds from 0")
