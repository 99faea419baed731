# Frames that wait for the end of the loop's turn, as in tornado_ws/engine/turn.py.

@cython.auto_pickle(False)
@cython.final
cdef class TurnWrites:
    """What one channel sends at the end of the turn; see `tornado_ws.engine.turn.TurnWrites`."""

    cdef public Channel channel
    cdef list pieces
    cdef readonly Py_ssize_t size
    cdef readonly list futures
    cdef object task

    def __init__(self, Channel channel):
        self.channel = channel
        self.pieces = []
        self.futures = []

    cdef object add_future(self):
        cdef object future
        if self.futures:
            future = self.futures[len(self.futures) - 1]
            # Nobody but this list has it, and nobody will be told: what a burst of writes that nobody awaits leaves.
            if Py_REFCNT(<PyObject*>future) == 2 and not future._callbacks and not future.done():
                return future
        future = GatheredWrite(loop=self.channel._buffers.loop)
        future.writes = self
        self.futures.append(future)
        return future

    def take(self):
        """Return what is to be sent; then there is nothing. Without memory for it, nothing is changed."""
        data = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces.clear()
        self.size = 0
        return data

    cpdef int send(self) except -1:
        """Send what waits."""
        cdef Channel channel = self.channel
        if channel is None or not self.size:
            return 0
        cdef list none = []
        data = self.take()
        cdef list futures = self.futures
        self.futures = none
        try:
            channel._offer(data)
            channel._settle(futures)
        except BaseException:
            channel._stream.close()
            channel._settle(futures)
            raise
        return 0

    def be_awaited(self):
        """One of the Futures is about to be awaited."""
        if self.channel is not None and (self.task is None or self.is_streaming()):
            self.task = self.current_task()
            self.send()

    cdef bint is_streaming(self) except -1:
        return self.task is not None and self.channel is not None and self.current_task() is self.task

    cdef object current_task(self):
        # Without the loop asyncio would ask for that first, and the system for the number of the process.
        return _tasks["current_task"](self.channel._buffers.loop)


cdef object _await_future = asyncio.Future.__await__


class GatheredWrite(asyncio.Future):
    """The Future of a write that leaves at the end of the turn; see `tornado_ws.engine.turn.GatheredWrite`."""

    __slots__ = ("writes",)

    def __await__(self):
        if not self.done():
            self.writes.be_awaited()
        return _await_future(self)

    __iter__ = __await__
