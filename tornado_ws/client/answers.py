"""A server's answer that is not 101: its status, its headers, and as much of its body as is worth waiting for."""

from __future__ import annotations

import asyncio
import io
import re
import zlib
from collections.abc import Awaitable
from types import TracebackType
from typing import Any

from tornado import httpclient, httputil, simple_httpclient
from tornado.http1connection import HTTP1Connection
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError

from tornado_ws.errors import HandshakeError, HandshakeRejectedError

#: Bytes of the body that are kept, counted when they are inflated. The rest is not read.
MAX_BODY = 65536

#: Pieces in which they may come. Each costs work, and older Tornados do all of it without letting others have a turn.
_MAX_PIECES = 1024

#: Answers of 1xx before the one that counts. Older Tornados have no limit, and go deeper with each.
_MAX_INTERIM = 10

#: Seconds that the body may be silent. Whoever waits wants the status; the body only explains it.
BODY_SILENCE = 1.0

#: Seconds, some turns of the loop.
_LAST_LOOK = 0.05

#: wbits of zlib for the gzip format.
_GZIP = 16 + zlib.MAX_WBITS


class AnsweredConnection(simple_httpclient._HTTPConnection):
    """Tornado's HTTP client, whose request ends in an exception of ``connect_future`` unless the answer is a 101.

    Once status and headers are there the exception is a `HandshakeRejectedError` or a `HandshakeError` with both,
    whatever becomes of the body: too long, late, cut off, malformed or badly compressed.
    """

    connect_future: asyncio.Future[Any]
    _answered = False
    _body_size = 0
    _pieces = 0
    _interim = 0
    _inflater: Any = None
    _silence: object = None

    def _create_connection(self, stream: IOStream) -> HTTP1Connection:
        connection = super()._create_connection(stream)
        # With Tornado's own decompressing, a bad body is an exception in the place of the answer.
        connection.params.decompress = False
        return connection

    async def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> None:
        assert isinstance(start_line, httputil.ResponseStartLine)
        if start_line.code < 200:
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                self.connection.detach().close()
                self._on_no_answer()
                return
        else:
            self._answered = True
            self.connect_future.add_done_callback(self._stop_waiting)
            self._wait_for_body()
            coding = headers.get("Content-Encoding", "")
            if self.request.decompress_response and coding.lower() == "gzip":
                self._inflater = zlib.decompressobj(_GZIP)
                # As Tornado's client does.
                headers.add("X-Consumed-Content-Encoding", coding)
                del headers["Content-Encoding"]
        await super().headers_received(start_line, headers)
        length = _body_length(start_line.code, headers)
        if self._answered and length is not None:
            # Tornado's client may log the text of a wrong Content-Length as it is, and up to 6.5 it keeps a body
            # without a length to itself until the connection ends.
            stream = self.connection.detach()
            try:
                await self._read_body(stream, length)
            finally:
                self._fail_with_answer()

    async def _read_body(self, stream: IOStream, length: int) -> None:
        try:
            while length > 0 and not self.connect_future.done():
                chunk = await stream.read_bytes(length, partial=True)
                length -= len(chunk)
                given = self.data_received(chunk)
                if given is not None:
                    await given
        except StreamClosedError:
            pass

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        if self.connect_future.done():
            return None
        self._wait_for_body()
        room = MAX_BODY - self._body_size
        if self._inflater is not None:
            try:
                chunk = self._inflater.decompress(chunk, room)
            except zlib.error as error:
                self._fail_with_answer(error)
                return None
        chunk = chunk[:room]
        self._body_size += len(chunk)
        self._pieces += 1
        given = super().data_received(chunk)
        if self._body_size >= MAX_BODY or self._pieces >= _MAX_PIECES:
            self._fail_with_answer()
        return given

    def finish(self) -> None:
        # Older Tornados also end the 103 that came before a 101, when the connection is ours already.
        if self._answered:
            self._fail_with_answer()

    def _wait_for_body(self) -> None:
        self._stop_waiting()
        self._silence = self.io_loop.call_later(BODY_SILENCE, self._on_silence)

    def _on_silence(self) -> None:
        # A loop that stood still has not read yet what lies in the kernel.
        self._silence = self.io_loop.call_later(_LAST_LOOK, self._fail_with_answer)

    def _stop_waiting(self, _: object = None) -> None:
        if self._silence is not None:
            self.io_loop.remove_timeout(self._silence)
            self._silence = None

    def _fail_with_answer(self, cause: BaseException | None = None) -> None:
        if self.connect_future.done():
            return
        assert self.code is not None
        response = httpclient.HTTPResponse(
            self.request,
            self.code,
            headers=self.headers,
            # A list of chunks before Tornado 6.6.
            buffer=io.BytesIO(self.chunks if isinstance(self.chunks, bytes | bytearray) else b"".join(self.chunks)),
            effective_url=self.request.url,
            request_time=self.io_loop.time() - self.start_time,
            reason=self.reason,
            start_time=self.start_wall_time,
        )
        error: HandshakeError
        if response.error is None:
            reason = f"Non-websocket response, {self.code} {response.reason}"
            error = HandshakeError(response.code, response.headers, reason)
        else:
            # In the place of Tornado's, which shows the words of the status as they came.
            error = response.error = HandshakeRejectedError(response)
        error.__cause__ = cause
        self.connect_future.set_exception(error)
        # Now, and not when the Future has told so: what lies in the kernel would be read up to then.
        self.stream.close()

    def _on_http_response(self, response: httpclient.HTTPResponse) -> None:
        """Called by Tornado's client with status 599 when there is no answer."""
        if not self.connect_future.done():
            error = response.error
            assert error is not None
            if isinstance(error, UnsatisfiableReadError):
                # A head above the limit: the stream was closed inside it, which is how callers know it.
                error = StreamClosedError(error)
            self.connect_future.set_exception(error)

    def _handle_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> bool:
        if self._answered:
            self._fail_with_answer(value)
        # What goes wrong after the attempt was given up is nobody's business, and no line of a log.
        return self.connect_future.done() or super()._handle_exception(typ, value, tb)

    async def _write_body(self, start_read: bool) -> None:
        await super()._write_body(start_read)
        if self.code is None:
            # Before Tornado 6.6 an answer that is no HTTP ends the reading without a word.
            self.io_loop.add_callback(self._on_no_answer)

    def _on_no_answer(self) -> None:
        if not self.connect_future.done():
            self.connect_future.set_exception(StreamClosedError(self.stream.error))


def _body_length(code: int, headers: httputil.HTTPHeaders) -> int | None:
    """Return how many bytes to read of a body, up to `MAX_BODY`, or None if it comes in chunks (RFC 9112 6.3)."""
    if code in (204, 304):
        return 0
    length = headers.get("Content-Length")
    if length is None:
        return None if headers.get("Transfer-Encoding", "").lower() == "chunked" else MAX_BODY
    # A list of equal numbers counts as one.
    numbers = {number.strip() for number in length.split(",")}
    number = numbers.pop()
    if numbers or not re.fullmatch("[0-9]{1,18}", number):
        return 0
    return min(int(number), MAX_BODY)
