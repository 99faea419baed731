"""TLS inside TLS: bytes between a TLS stream and a socket that can carry TLS of its own.

The ssl module can put TLS over a socket, but not over another TLS session. Here the outer session has a pair of sockets
behind it: who connects gets one end, and a task carries bytes between the other end and the session.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from tornado.iostream import IOStream, StreamClosedError

from tornado_ws.coroutines import run_in_task
from tornado_ws.transport.sockets import detach, linger
from tornado_ws.transport.stream import send_close_notify, stop_watching

#: Bytes that are carried at once.
_CHUNK = 65536

#: Seconds that the far end has to close, once the near end has.
_LINGER = 5.0


def relay(far: IOStream) -> IOStream:
    """Return a stream over a socket of its own; what is written to it goes to ``far``, and the other way round.

    When one end closes, the other one gets what was on its way, and is closed.
    """
    near, ours = (IOStream(end) for end in socket.socketpair())
    run_in_task(_carry_both(ours, far))
    return near


async def _carry_both(ours: IOStream, far: IOStream) -> None:
    inwards = asyncio.ensure_future(_carry(far, ours))
    inwards.add_done_callback(lambda _: ours.close())
    await _carry(ours, far)
    if not far.closed():
        send_close_notify(far)
        # A close over unread bytes would be a reset, which destroys what is on its way out.
        stop_watching(far)
        rest = detach(far.socket)
        far.close()
        linger(far.io_loop, rest, _LINGER)
    await inwards


async def _carry(source: IOStream, sink: IOStream) -> None:
    with contextlib.suppress(StreamClosedError):
        while True:
            await sink.write(await source.read_bytes(_CHUNK, partial=True))
