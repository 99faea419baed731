"""A conversation with a server, over one connection or, with ``--reconnect``, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from tornado_ws.cli import statuses
from tornado_ws.cli.display import Display
from tornado_ws.cli.entries import Close, Entry, Help, Message, Ping
from tornado_ws.client.connection import WebSocketClientConnection
from tornado_ws.close_codes import NORMAL_CLOSURE
from tornado_ws.errors import WebSocketClosedError
from tornado_ws.escaping import shown

#: Pings whose answers are awaited; a server may leave them out.
_MOST_PINGS = 100


class Session:
    """Shows what comes, and sends what is entered.

    :param connections: the connections, in order; closing it closes the one that there is.
    """

    def __init__(
        self, connections: AsyncIterator[WebSocketClientConnection], display: Display, is_verbose: bool = False
    ) -> None:
        self._connections = connections
        self._display = display
        self._is_verbose = is_verbose
        self._conn: WebSocketClientConnection | None = None
        self._is_open = asyncio.Event()
        self._is_gone = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_ending = False
        self._receiving: asyncio.Future[int] | None = None
        #: When pings were sent, by their payloads.
        self._pings: dict[bytes, float] = {}

    async def run(self, entries: AsyncIterator[Entry], wait: float | None) -> int:
        """Converse until the connections end, or the entries do; returns the exit status.

        :param wait: seconds for which to receive after the last entry, and what has come is shown before the connection
            is closed; None closes at once, connected or not.
        :raises ValueError: what ``entries`` raises, when the connection is closed.
        """
        self._receiving = asyncio.ensure_future(self._receive())
        sending = asyncio.ensure_future(self._send(entries, wait))
        try:
            await asyncio.wait({self._receiving, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not self._receiving.done():
                self.close()
                await asyncio.wait({self._receiving})
            if sending.done():
                sending.result()
            return statuses.OK if self._receiving.cancelled() else self._receiving.result()
        finally:
            for task in (sending, self._receiving):
                task.cancel()
            await asyncio.gather(sending, self._receiving, return_exceptions=True)

    def close(self, code: int = NORMAL_CLOSURE, reason: str | None = None) -> None:
        """Close the connection, or give up connecting. Raises ValueError for a code or a reason that is not allowed."""
        if self._conn is not None:
            self._conn.close(code, reason)
            self._display.allow_more()
        elif self._receiving is not None:
            self._receiving.cancel()
        self._is_ending = True

    async def connected(self) -> WebSocketClientConnection:
        """Wait until there is a connection, and return it."""
        while self._conn is None:
            await self._is_open.wait()
        return self._conn

    async def _receive(self) -> int:
        status = statuses.OK
        async for conn in self._connections:
            self._begin(conn)
            try:
                status = await self._receive_from(conn)
            finally:
                self._conn = None
                self._is_open.clear()
                self._is_gone.set()
            if self._is_ending:
                break
        return status

    def _begin(self, conn: WebSocketClientConnection) -> None:
        self._conn = conn
        self._is_open.set()
        self._is_gone.clear()
        self._pings.clear()
        conn.on_ping = self._on_ping  # type: ignore[method-assign]
        conn.on_pong = self._on_pong  # type: ignore[method-assign]
        assert conn.headers is not None
        protocol = conn.headers.get("Sec-WebSocket-Protocol")
        self._display.note("connected" + (f", subprotocol {protocol}" if protocol else ""))
        if self._is_verbose:
            for name, value in conn.headers.get_all():
                self._display.note(f"{name}: {value}")

    async def _receive_from(self, conn: WebSocketClientConnection) -> int:
        try:
            while True:
                self._is_idle.set()
                try:
                    message = await anext(conn)
                except StopAsyncIteration:
                    break
                self._is_idle.clear()
                self._display.message(message)
                await self._display.room()
        except WebSocketClosedError as error:
            self._display.problem(str(error))
            return statuses.of_close(error.close_code)
        code = conn.close_code
        said = f" with {code}" if code is not None else ""
        self._display.note(f"closed{said}{f': {conn.close_reason}' if conn.close_reason else ''}")
        return statuses.OK

    def _on_ping(self, data: bytes) -> None:
        self._display.note(f"ping {shown(data)}" if data else "ping")

    def _on_pong(self, data: bytes) -> None:
        sent = self._pings.pop(data, None)
        after = "" if sent is None else f" after {(time.perf_counter() - sent) * 1000:.1f} ms"
        self._display.note((f"pong {shown(data)}" if data else "pong") + after)

    async def _send(self, entries: AsyncIterator[Entry], wait: float | None) -> None:
        async for entry in entries:
            try:
                await self._enter(entry)
            except ValueError as error:
                # The wrong code of a /close, or a ping that is too long.
                self._display.problem(str(error))
        if wait is not None:
            await self.connected()
            if wait == float("inf"):
                await asyncio.Event().wait()
            await asyncio.sleep(wait)
            # A client that closes is not given what it leaves unread.
            while not self._is_idle.is_set():
                await self._is_idle.wait()
            self.close()

    async def _enter(self, entry: Entry) -> None:
        if isinstance(entry, Message):
            await self._send_message(entry.data)
        elif isinstance(entry, Close):
            await self.connected()
            self.close(entry.code, entry.reason)
        elif isinstance(entry, Ping):
            conn = await self.connected()
            with contextlib.suppress(WebSocketClosedError):
                conn.ping(entry.data)
                if len(self._pings) < _MOST_PINGS:
                    self._pings[entry.data.encode()] = time.perf_counter()
        else:
            assert isinstance(entry, Help)

    async def _send_message(self, data: str | bytes) -> None:
        while True:
            conn = await self.connected()
            try:
                written = conn.write_message(data, binary=isinstance(data, bytes))
            except WebSocketClosedError:
                # It was not sent: it is for the next connection, if there is to be one.
                if self._conn is conn:
                    await self._is_gone.wait()
                continue
            try:
                await written
            except WebSocketClosedError:
                self._display.problem(f"this message may not have been sent: {shown(data, 40)}")
            return
