# What the channels of one loop share.

@cython.final
cdef class _Buffers:
    """What the channels of one loop share: memory to receive into, and to gather frames in."""

    cdef uint8_t[PLAIN_SIZE] received
    cdef uint8_t[CORK_SIZE] corked
    cdef uint8_t[READ_SIZE] cipher
    cdef uint8_t[SEALED_SIZE] sealed
    cdef Py_ssize_t corked_size
    # Whose frames are gathered, and whether somebody parses what was received: a loop can run inside a callback.
    cdef Channel corking
    cdef bint parsing
    # Whether that one has sent what it wrote first while nothing more was known to come.
    cdef bint first_sent
    cdef object view
    cdef object loop
    # The turn that is under way, as in tornado_ws/engine/turn.py.
    cdef unsigned int turn
    cdef bint turn_is_open
    cdef list waiting

    def __init__(self, loop):
        self.loop = loop
        self.waiting = []
        self.view = memoryview(<uint8_t[:READ_SIZE]>self.received)

    cdef bint has_written(self, Channel channel) except -1:
        """Note that ``channel`` is written to; see `tornado_ws.engine.turn.Turn.has_written`."""
        if not self.loop.is_running():
            return False
        if not self.turn_is_open:
            self.loop.call_soon(self._end_turn)
            self.turn_is_open = True
            self.turn += 1
        elif channel.turn == self.turn:
            return True
        channel.turn = self.turn
        return False

    def _end_turn(self):
        cdef list waiting = self.waiting
        self.turn_is_open = False
        self.waiting = []
        try:
            while waiting:
                (<Channel?>waiting.pop()).end_turn()
        finally:
            if waiting:
                self.loop.call_soon(self._end_turn)
                self.waiting += waiting


@cython.auto_pickle(False)
@cython.final
cdef class TurnWrites:
    """What one channel sends at the end of the turn; see `tornado_ws.engine.turn.TurnWrites`."""

    cdef Channel channel
    cdef list pieces
    cdef readonly Py_ssize_t size
    cdef list futures
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
        """Return what is to be sent, and what is to be told of it; then there is nothing."""
        data = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        futures = self.futures
        self.pieces = []
        self.futures = []
        self.size = 0
        return data, futures

    def be_awaited(self):
        """One of the Futures is about to be awaited."""
        if self.channel is not None and (self.task is None or self.is_streaming()):
            self.task = _tasks["current_task"]()
            self.channel.send_turn_writes()

    cdef bint is_streaming(self) except -1:
        return self.task is not None and _tasks["current_task"]() is self.task


cdef object _await_future = asyncio.Future.__await__


class GatheredWrite(asyncio.Future):
    """The Future of a write that leaves at the end of the turn; see `tornado_ws.engine.turn.GatheredWrite`."""

    __slots__ = ("writes",)

    def __await__(self):
        if not self.done():
            self.writes.be_awaited()
        return _await_future(self)

    __iter__ = __await__


cdef _Buffers buffers_of(object io_loop):
    cdef dict attributes = vars(io_loop)
    buffers = attributes.get("_ws_buffers")
    if buffers is None:
        buffers = attributes["_ws_buffers"] = _Buffers(io_loop.asyncio_loop)
    return <_Buffers>buffers
