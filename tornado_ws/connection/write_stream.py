"""`WriteStream`: one message, sent in parts."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from tornado.iostream import StreamClosedError

from tornado_ws.close_codes import INTERNAL_ERROR
from tornado_ws.connection.interfaces import WebSocketParams
from tornado_ws.deflate.codec import PerMessageDeflateCompressor
from tornado_ws.deflate.module_streams import TAIL
from tornado_ws.engine.contract import BINARY, CONTINUATION, FIN, RSV1, TEXT
from tornado_ws.errors import WebSocketClosedError, WriteLimitError
from tornado_ws.transport.futures import completed_future
from tornado_ws.transport.transport import Transport

if TYPE_CHECKING:
    from typing_extensions import Self


class Owner(Protocol):
    """The connection that a `WriteStream` writes to."""

    _compressor: PerMessageDeflateCompressor | None
    _steps_replaced: bool
    params: WebSocketParams

    @property
    def server_terminated(self) -> bool:
        """Whether a close frame was sent, or nothing can be."""

    def _attach(self) -> Transport:
        """Return the transport. Raises `.StreamClosedError`."""

    def _write_frame(self, fin: bool, opcode: int, data: bytes, flags: int = 0) -> asyncio.Future[None]:
        """Send a frame."""

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Start the closing handshake."""


class Order(Protocol):
    """What keeps messages apart: RFC 6455 section 5.4 forbids one inside another."""

    def put_stream(self, stream: WriteStream) -> None:
        """Call ``stream.begin`` when it is its turn; messages behind it wait until its Future is done."""


class WriteStream:
    """One message, sent in parts: ``async with conn.write_stream() as stream: await stream.write(part)``.

    Each part is a frame. The block begins when the messages before it are sent; those that are written meanwhile wait
    for its end. Control frames do not. The end of the block ends the message. A block that is left by an exception
    when a part was written closes the connection with 1011: what was sent of the message cannot be taken back.
    """

    __slots__ = (
        "_begun",
        "_compresses",
        "_decoder",
        "_deflate",
        "_done",
        "_is_inside",
        "_opcode",
        "_order",
        "_owner",
        "_turn",
    )

    def __init__(self, owner: Owner, order: Order, binary: bool, compress: bool) -> None:
        self._owner = owner
        self._order = order
        self._opcode = BINARY if binary else TEXT
        self._compresses = compress
        self._deflate: Callable[[bytes], bytes] | None = None
        self._decoder = None if binary else codecs.getincrementaldecoder("utf-8")()
        #: Done when the message may begin, and when it is at its end or given up.
        self._turn: asyncio.Future[None] | None = None
        self._done: asyncio.Future[None] | None = None
        #: Whether the block has begun and not ended, and whether a frame was sent.
        self._is_inside = self._begun = False

    async def __aenter__(self) -> Self:
        """Wait for the messages before it.

        :raises WebSocketClosedError: when the connection is closed or closing.
        :raises RuntimeError: when it is entered a second time.
        """
        if self._done is not None:
            raise RuntimeError("a stream is one message and was entered before; write_stream() gives another one")
        if self._owner.server_terminated:
            raise WebSocketClosedError()
        loop = asyncio.get_running_loop()
        self._turn, self._done = loop.create_future(), loop.create_future()
        try:
            self._order.put_stream(self)
            await self._turn
        except StreamClosedError:
            raise WebSocketClosedError() from None
        except BaseException:
            self.give_up()
            raise
        if self._done.done():
            raise WebSocketClosedError()
        self._is_inside = True
        return self

    async def __aexit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """End the message, and wait until its last frame is with the operating system.

        :raises WebSocketClosedError: when the connection was closed before.
        :raises ValueError: for text that ends inside a character. The connection is closed with 1011.
        """
        self._is_inside = False
        if typ is not None:
            self._break_off()
        elif self._is_over:
            raise WebSocketClosedError()
        else:
            await self._end()

    def write(self, part: str | bytes | bytearray | memoryview) -> asyncio.Future[None]:
        """Send a part of the message.

        :param part: a str, bytes, bytearray or memoryview, of any size. Of a text message bytes have to be UTF-8
            together, so a character may be cut between two parts of bytes. An empty part sends nothing.
        :returns: a `.Future` for flow control, as that of `.WebSocketHandler.write_message`.
        :raises WebSocketClosedError: when the connection is closed or closing.
        :raises WriteLimitError: when too much waits already, unless the policy is "close". The part is not sent.
        :raises ValueError: for bytes that are not UTF-8 where they stand. The part is not sent.
        :raises TypeError: for any other type.
        :raises RuntimeError: outside of the block, and in another thread than the connection's.
        """
        if not isinstance(part, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"part is of type {type(part).__name__}; allowed are str and bytes")
        if not self._is_inside:
            raise RuntimeError("a part is written inside of 'async with conn.write_stream() as stream' only")
        try:
            if self._is_over or self._owner.server_terminated:
                raise WebSocketClosedError()
            transport = self._owner._attach()
            transport.check_thread()
            if transport.is_behind(at_limit=True):
                if self._owner.params.options.write_limit_policy not in ("close", "raise"):
                    raise WriteLimitError("too many bytes wait to be sent, and a part of a message cannot be dropped")
                refused = transport.refuse()
                if refused is not None:
                    return refused
            payload = part.encode() if isinstance(part, str) else bytes(part)
            if self._decoder is not None:
                _check(self._decoder, part, payload)
            return self._write_part(transport, payload)
        except StreamClosedError:
            raise WebSocketClosedError() from None

    @property
    def _is_over(self) -> bool:
        return self._done is None or self._done.done()

    def _write_part(self, transport: Transport, payload: bytes) -> asyncio.Future[None]:
        size = len(payload)
        if not size:
            return completed_future(transport._io_loop)
        flags = 0
        is_first, self._begun = not self._begun, True
        try:
            if is_first and self._owner._compressor is not None and self._compresses:
                self._deflate = self._owner._compressor.begin_message()
                flags = RSV1
            if self._deflate is not None:
                # What is left away behind each part (RFC 7692 section 7.2.1) may be so behind the last one only.
                payload = (b"" if is_first else TAIL) + self._deflate(payload)
            future = self._write_frame(transport, self._opcode if is_first else CONTINUATION, payload, flags)
        except StreamClosedError:
            raise
        except BaseException:
            # The compressor, or the kernel, may have a part of it.
            self._break_off()
            raise
        transport.message_bytes += size
        return future

    def _write_frame(self, transport: Transport, opcode: int, payload: bytes, flags: int) -> asyncio.Future[None]:
        if self._owner._steps_replaced:
            return self._owner._write_frame(bool(flags & FIN), opcode, payload, flags & ~FIN)
        return transport.write_frame(flags | opcode, payload)

    async def _end(self) -> None:
        assert self._done is not None
        if self._decoder is not None and self._decoder.getstate()[0]:
            self._break_off()
            raise ValueError("a text message ends inside a character; its parts together have to be UTF-8")
        try:
            transport = self._owner._attach()
            opcode = CONTINUATION if self._begun else self._opcode
            written = self._write_frame(transport, opcode, b"", FIN)
        except StreamClosedError:
            self.give_up()
            raise WebSocketClosedError() from None
        transport.messages += 1
        self._done.set_result(None)
        await written

    def _break_off(self) -> None:
        """The message will not come to its end: nothing else may follow what was sent of it."""
        if not self._is_over and self._begun and not self._owner.server_terminated:
            self._owner.close(INTERNAL_ERROR, "message was not finished")
        self.give_up()

    # For the connection

    def begin(self) -> asyncio.Future[None]:
        """It is its turn. Returns a Future of its end."""
        assert self._turn is not None
        assert self._done is not None
        if not self._turn.done():
            self._turn.set_result(None)
        return self._done

    def give_up(self) -> bool:
        """Write nothing more; returns whether the message was cut by that."""
        if self._is_over:
            return False
        assert self._turn is not None
        assert self._done is not None
        self._done.set_result(None)
        if not self._turn.done():
            self._turn.set_result(None)
        return self._begun


def _check(decoder: Any, part: object, payload: bytes) -> None:
    """Raise ValueError unless ``payload`` goes on with the text that ``decoder`` has seen, which is as before then."""
    before = decoder.getstate()
    if isinstance(part, str) and not before[0]:
        return
    try:
        decoder.decode(payload)
    except UnicodeDecodeError:
        decoder.setstate(before)
        raise
