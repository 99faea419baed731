"""One connection's bytes: what a detached `.IOStream` reads and writes, once its readiness is ours.

Going through an IOStream costs more than all the rest of a WebSocket server. So a `Transport` takes the stream's
descriptor off the IOLoop, watches it with a `poller`, and moves bytes with the stream's own ``read_from_fd`` and
``write_to_fd`` (the documented primitives, which carry TLS too), or past them where they do nothing to the bytes. The
stream stays what applications see: it answers ``closed()``, ``socket``, ``set_nodelay()`` and ``error``, it may be
written to, and closing it closes the connection.

The file is long since reading, writing and closing share the descriptor, and what waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tornado.iostream import IOStream, StreamBufferFullError
from tornado.log import gen_log

from tornado_ws.engine import Channel, FrameReader, openssl_errors
from tornado_ws.engine.contract import SEND_SIZE, Receiver
from tornado_ws.engine.write_queue import WriteQueue
from tornado_ws.errors import WebSocketClosedError
from tornado_ws.observing.sums import NO_SUMS, Sums, add_closed
from tornado_ws.options import Options
from tornado_ws.transport.futures import completed_future, fail, failed_future, succeed
from tornado_ws.transport.interfaces import Owner
from tornado_ws.transport.poller import READ, WRITE, poller_of
from tornado_ws.transport.sockets import detach, linger, may_lose_messages, unacknowledged
from tornado_ws.transport.stream import (
    peer_name,
    send_at_once,
    send_close_notify,
    take_over,
    take_read_bytes,
    unread,
)

if TYPE_CHECKING:
    from tornado_ws.observing.counters import Counters

#: Bytes that the Future of a write that waits takes beside what is written, so that small messages are limited too.
_FUTURE_SIZE = 256


class Transport(Channel):
    """A channel with its beginning and its end, and with what the kernel does not take at once."""

    __slots__ = (
        "__weakref__",
        "_drain_futures",
        "_drain_timeout",
        "_early",
        "_events",
        "_goes_on",
        "_held_end",
        "_left",
        "_options",
        "_owner",
        "_poller",
        "_room_future",
        "_sent",
        "_shut_when_drained",
        "_stall",
        "dropped",
    )

    def __init__(self, stream: IOStream, owner: Owner, masked: bool, options: Options) -> None:
        """Take ``stream`` over. Reading begins with `start`."""
        try:
            super().__init__(stream, masked, completed_future(stream.io_loop))
            self._owner = owner
            self._poller = poller_of(self._io_loop)
            self._options = options
            self.high_watermark = options.write_high_watermark
            self._events = 0
            self._goes_on = False
            self._sent = 0
            #: What the stream has read beyond the opening handshake, until it is delivered.
            self._early = b""
            self._drain_futures: deque[tuple[int, asyncio.Future[None]]] | None = None
            self._shut_when_drained = False
            #: The timeout until which the peer has to take some of the waiting bytes, when the connection closes.
            self._drain_timeout: object | None = None
            self._left: Sums | None = None
            self._room_future: asyncio.Future[None] | None = None
            #: Why the stream has ended while reading was paused; handled when reading is resumed.
            self._held_end: tuple[Exception | None] | None = None
            #: How many bytes the peer had taken when somebody asked, and since when, in the loop's time.
            self._stall: tuple[int, float] | None = None
            self.dropped = 0
            # Frames are gathered here already; held back in the kernel too, the end of one would wait for the peer's
            # delayed acknowledgement of its beginning, 40 ms.
            send_at_once(stream)
            unsent = take_over(stream, self)
            self._poller.add(self)
            if unsent:
                self._offer(unsent)
        except BaseException:
            # HTTP has given the stream up already: nobody else would close it.
            stream.close()
            raise

    # Reading

    def start(self, reader: FrameReader, receiver: Receiver) -> None:
        """Begin to read, with what the stream has read beyond the opening handshake."""
        self.reader = reader
        self.receiver = receiver
        self._early = take_read_bytes(self._stream)
        if self._early:
            self._io_loop.add_callback(self.begin)
        else:
            self.resume_reading()

    def begin(self) -> None:
        """Take what the stream has read beyond the opening handshake, unless that is done."""
        if not self._early:
            return
        early, self._early = self._early, b""
        self.dispatch(self._take, early)
        if self.direct or self.ahead:
            # All is delivered. Where it is not, the receiver has decided about reading.
            self.resume_reading()

    def resume_reading(self) -> None:
        # Bytes in the kernel come behind those that were read before.
        if not self.reading and self.fd >= 0 and not self._early:
            self.reading = True
            self._watch()
            if isinstance(self._stream.socket, ssl.SSLSocket) and self._stream.socket.pending():
                # Bytes inside the TLS layer give no readiness.
                self._io_loop.add_callback(self.handle_events)
            if self._held_end is not None:
                self._io_loop.add_callback(self._end_if_held)

    def go_on_later(self, go_on: Callable[[], None]) -> None:
        """Read nothing more, and `dispatch` ``go_on`` when the rest of the loop, and other connections, had a turn."""
        self.pause_reading()
        # Whoever else calls `advance` meanwhile must not make it two turns in each of the loop's from then on.
        if not self._goes_on:
            self._goes_on = True
            self._poller.go_on_later(functools.partial(self._go_on, go_on))

    def _go_on(self, go_on: Callable[[], None]) -> None:
        self._goes_on = False
        self.dispatch(go_on)

    def pause_reading(self) -> None:
        if self.reading:
            self.reading = False
            self._watch()

    def close(self) -> None:
        """Close the stream at once."""
        self._stream.close()

    def fileno(self) -> int:
        return self.fd

    def _end_reading(self, error: Exception | None) -> None:
        if error is not None:
            # As for what a write has failed with: a stream keeps its error.
            error.__traceback__ = None
        if self.reading:
            self.pause_reading()
            self.dispatch(self._owner.eof_received, error)
        else:
            # One read of TLS has brought messages and, behind them, the end. The receiver has stopped at the messages.
            self._held_end = (error,)

    def _end_if_held(self) -> None:
        if self._held_end is not None and self.reading and self.fd >= 0:
            (error,), self._held_end = self._held_end, None
            self._end_reading(error)

    def _handling_failed(self, error: BaseException) -> None:
        # Nothing of it may reach the poller: other connections have events in the same batch.
        with contextlib.suppress(Exception):
            self._owner.handling_failed(error)
        if self.fd >= 0:
            self._stream.close()

    def _watch(self) -> None:
        events = (READ if self.reading else 0) | (WRITE if self._write_queue is not None else 0)
        if events != self._events:
            try:
                self._poller.watch(self, events)
            except OSError as error:
                # The kernel is out of memory or of watches (epoll_ctl(2): ENOMEM, ENOSPC). A socket that nobody watches
                # would stay open for ever.
                gen_log.error("WebSocket from %s closed: cannot watch its socket: %s", peer_name(self._stream), error)
                self._stream.close(exc_info=error.with_traceback(None))
            else:
                self._events = events

    def _change_thread(self) -> None:
        """This is not the thread that the connection belonged to: right if its loop has moved here, or stands still."""
        loop = self._io_loop.asyncio_loop  # type: ignore[attr-defined]
        if not loop.is_running():
            return
        if asyncio._get_running_loop() is not loop:
            raise RuntimeError(
                f"a WebSocket connection was used in thread {threading.current_thread().name!r}, but belongs to the "
                "thread that runs its IOLoop: send with write_message_threadsafe(), do all else by "
                "IOLoop.add_callback()"
            )
        self.thread = threading.get_ident()

    # Writing

    @property
    def buffered(self) -> int:
        """Bytes written but not yet accepted by the kernel."""
        waiting = len(self._write_queue) if self._write_queue is not None else 0
        return self._corked_size + (self._turn_writes.size if self._turn_writes is not None else 0) + waiting

    def taken(self) -> int:
        """Return how many bytes the peer has taken, as far as the operating system tells."""
        held = 0 if self._stream.closed() else unacknowledged(self._stream.socket)
        return self.wire_bytes - self.buffered - held

    def _keep(self, data: bytes, begin: int = 0, more: bytes = b"", awaited: bool = True) -> asyncio.Future[None]:
        """Keep what is behind ``begin`` of ``data``, and ``more``, until the kernel takes it.

        No Future is made for what is not ``awaited``.
        """
        if self.fd < 0:
            return failed_future(self._io_loop)
        try:
            if self._write_queue is None:
                self._write_queue = WriteQueue()
                self._watch()
                if self.fd < 0:
                    return failed_future(self._io_loop)
            self._write_queue.append(data, begin)
            self._write_queue.append(more)
            if not awaited or len(self._write_queue) <= self.high_watermark:
                return self._done
            return self._future_of_last_write()
        except BaseException:
            # The kernel may have the beginning of it: what is written next would stand inside a frame.
            self._stream.close()
            raise

    def write_shared(self, frame: bytes) -> None:
        """Send a frame that others get too, and that nobody awaits: where it has to wait there is a reference to it.

        Raises what `write` does.
        """
        if self._write_queue is None:
            self.write_unawaited(frame)
        else:
            self._check_room(len(frame))
            self._keep(frame, awaited=False)
        self.wire_bytes += len(frame)

    def _check_room(self, size: int) -> None:
        """Raise StreamBufferFullError if ``size`` bytes are too many for what the stream was made with.

        Before they are encrypted: a record that is not sent breaks the session. If they are compressed, the next
        message must not refer to them.
        """
        most = self._stream.max_write_buffer_size
        if most is not None and self.buffered + size > most:
            if self.compressor is not None:
                self.compressor.forget()
            raise StreamBufferFullError("Reached maximum write buffer size")

    def flush(self) -> None:
        """Send what waits for other writes inside `dispatch`, or for the end of the turn."""
        self.send_turn_writes()
        corked = self._take_corked()
        if corked:
            self._offer(corked)

    def end_turn(self) -> None:
        """Send what waits for the end of the turn, which is now. Raises what is to end the loop, nothing else."""
        writes = self._turn_writes
        try:
            self.flush()
        except BaseException as error:
            self._handling_failed(error)
            if not isinstance(error, Exception):
                raise
        finally:
            if writes is not None:
                self._turn_writes = writes.channel = None

    def _future_of_last_write(self) -> asyncio.Future[None]:
        assert self._write_queue is not None
        future: asyncio.Future[None] = asyncio.Future(loop=self._done.get_loop())
        self._await_last_write([future])
        return future

    def _await_last_write(self, futures: Sequence[asyncio.Future[None]]) -> None:
        assert self._write_queue is not None
        if self._drain_futures is None:
            self._drain_futures = deque()
        end = self._sent + len(self._write_queue)
        self._drain_futures.extend((end, future) for future in futures)

    def _settle(self, futures: Sequence[asyncio.Future[None]]) -> None:
        """Let ``futures`` end as the last write does."""
        if self.fd >= 0 and self._write_queue is not None and len(self._write_queue) > self.high_watermark:
            self._await_last_write(futures)
            return
        for future in futures:
            if self.fd >= 0:
                succeed(future)
            else:
                fail(future, WebSocketClosedError())

    def _flush(self) -> None:
        queue = self._write_queue
        most = SEND_SIZE
        while queue and most > 0:
            piece = queue.first()
            count = self._send(piece)
            self._sent += count
            most -= count
            queue.sent(count)
            if count < len(piece):
                break
        if self._drain_futures is not None:
            enough = self._sent + self._options.low_watermark
            while self._drain_futures and self._drain_futures[0][0] <= enough:
                succeed(self._drain_futures.popleft()[1])
        if queue or self.fd < 0:
            return
        if self._shut_when_drained:
            self._shut()
        else:
            self._write_queue = None
            self._watch()

    def refuse(self) -> asyncio.Future[None] | None:
        """Return None when another message may be written, else what ``write_message`` returns instead."""
        why = self._why_full() if self.fd >= 0 else None
        if why is None:
            return None
        self.check_thread()
        return self._owner.write_refused(why)

    def _why_full(self) -> str | None:
        """Return why no other message may be written; None when it may."""
        options = self._options
        unsent, writes = self._owner.held_back()
        unsent += self.buffered
        writes += len(self._drain_futures or ())
        size = unsent + _FUTURE_SIZE * writes
        if options.write_limit is not None and size >= options.write_limit:
            why = f"write_limit is {options.write_limit}"
        elif options.write_stall_timeout is not None and size >= options.write_stall_limit and self._is_stalled():
            why = f"the peer has taken nothing for {options.write_stall_timeout} s, the write_stall_timeout"
        else:
            return None
        return f"{unsent} bytes wait to be sent, and {why}"

    def is_behind(self, at_limit: bool) -> bool:
        """Whether so much waits that a message may wait too: more than ``write_high_watermark``.

        With ``at_limit``: so much that the write limits refuse another message.
        """
        size, writes = self._owner.held_back()
        if self.fd < 0 or (self._write_queue is None and not writes):
            return False
        if at_limit:
            return self._why_full() is not None
        return size + len(self._write_queue or b"") > self.high_watermark

    def _is_stalled(self) -> bool:
        """Whether the peer has taken nothing for ``write_stall_timeout`` seconds, asked when much waits for it."""
        taken = self.taken()
        now: float = self._io_loop.asyncio_loop.time()  # type: ignore[attr-defined]
        if self._stall is None or self._stall[0] != taken:
            self._stall = taken, now
            return False
        assert self._options.write_stall_timeout is not None
        return now - self._stall[1] >= self._options.write_stall_timeout

    def room(self) -> asyncio.Future[None]:
        """Return a Future that is done when what waits now is with the kernel.

        All that are asked for before something else is written are one, or they would take memory without a limit.
        """
        if self._room_future is None or self._room_future.done():
            self._room_future = self._future_of_last_write()
        return self._room_future

    # Counting

    def counters(self) -> Counters:
        """Return what went over the connection so far."""
        from tornado_ws.observing.counters import Counters

        return Counters(*self._sums(), self.buffered + self._owner.held_back()[0], self._owner.latency)

    def _sums(self) -> Sums:
        reader = self.reader
        return (
            reader.messages if reader is not None else 0,
            self.messages,
            reader.message_bytes if reader is not None else 0,
            self.message_bytes,
            reader.wire_bytes if reader is not None else 0,
            self.wire_bytes,
            self.dropped,
        )

    def record_counts(self) -> None:
        """Leave what was counted to the sums of the process: when the socket closes, and when all is delivered."""
        try:
            before, self._left = self._left, self._sums()
            if before != self._left:
                add_closed(before, self._left)
        except MemoryError:
            # Where there is no memory to count, the connection ends all the same. A context manager is three calls.
            pass

    def release(self) -> Sums:
        """Let go of the receiver, for whom the connection has ended; return what was counted."""
        self.receiver = None
        self._early = b""
        # Without memory to count there is none.
        return self._left or NO_SUMS

    # Closing

    def close_gracefully(self) -> None:
        """Close once everything written is with the kernel, and in a way that the peer can still read it."""
        if self.fd < 0:
            return
        self.flush()
        self.pause_reading()
        if self._write_queue is not None:
            self._shut_later()
        elif self.fd >= 0:
            self._shut()

    def _shut_later(self) -> None:
        """`_shut` when everything is with the kernel, unless the peer does not take it."""
        self._shut_when_drained = True
        self._close_later_unless_taken()

    def _close_later_unless_taken(self) -> None:
        self._drain_timeout = self._io_loop.call_later(
            self._options.close_timeout, self._close_unless_taken, self.taken()
        )

    def _close_unless_taken(self, before: int) -> None:
        """Close when the peer has taken nothing since ``before``: it would keep the socket for ever."""
        if self.fd < 0:
            return
        if self.taken() == before:
            self.close()
        else:
            self._close_later_unless_taken()

    def _shut(self) -> None:
        if not send_close_notify(self._stream):
            self._shut_again_when_writable()
            return
        rest = None
        # A peer that has sent its close frame sends no message (RFC 6455 section 5.5.1), but it may answer a ping.
        if not self._owner.was_clean or unread(self._stream) or may_lose_messages(self._stream.socket):
            with contextlib.suppress(OSError, MemoryError):
                rest = detach(self._stream.socket)
        self._stream.close()
        if rest is not None:
            linger(self._io_loop, rest, self._options.close_timeout)

    def _shut_again_when_writable(self) -> None:
        if not self._shut_when_drained:
            self._shut_later()
        if self._write_queue is None:
            # An empty queue: the waiting bytes are inside the TLS session.
            self._write_queue = WriteQueue()
            self._watch()

    def write_for_stream(self, data: bytes | memoryview) -> asyncio.Future[None]:
        """What the stream's own ``write`` does: its bytes follow ours."""
        return self.write(bytes(data))

    def close_fd(self) -> None:
        """Called in the place of the stream's own ``close_fd``: the stream is about to close its descriptor."""
        del self._stream.close_fd, self._stream.write
        self.reading = self.direct = self.ahead = False
        try:
            # Tornado expects that this works, also where there is no memory.
            try:  # noqa: SIM105 - a context manager is three calls
                self._give_up_writes()
            except MemoryError:
                pass
            self.record_counts()
        finally:
            # Nobody else would close it, or tell the application.
            self._poller.remove(self)
            self.fd = -1
            if self._drain_timeout is not None:
                # The loop would keep the connection and its application until then.
                self._io_loop.remove_timeout(self._drain_timeout)
                self._drain_timeout = None
            self._io_loop.add_callback(self.dispatch, self._owner.connection_lost)
            self._stream.close_fd()

    def _give_up_writes(self) -> None:
        writes = self._turn_writes
        if writes is None and self._write_queue is None and self._drain_futures is None and not self._corked_size:
            return
        futures = writes.futures if writes is not None else []
        # What was written before must be with the kernel, as it would be on a stream of Tornado's.
        with contextlib.suppress(OSError, MemoryError):
            unsent = (writes.take() if writes is not None else b"") + self._take_corked()
            # In a forked child they are the parent's to send.
            may_send = self._write_queue is None and not self._poller.is_inherited
            if (
                unsent
                and may_send
                and openssl_errors.call(False, self._stream.write_to_fd, memoryview(unsent)) == len(unsent)
            ):
                for written in futures:
                    succeed(written)
        waiting: list[asyncio.Future[None]] = [future for future in futures if not future.done()]
        waiting += [future for _, future in self._drain_futures or () if not future.done()]
        if waiting or self._write_queue:
            self._owner.writes_lost(self.buffered, len(waiting))
        self._write_queue = self._drain_futures = self._room_future = None
        for future in waiting:
            fail(future, WebSocketClosedError())
