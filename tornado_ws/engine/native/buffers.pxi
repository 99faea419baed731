# What the channels of one loop share.

cdef dict _asyncio = vars(asyncio)


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
    cdef list _ended

    def __init__(self, loop):
        self.loop = loop
        self.waiting = []
        self._ended = []
        self.view = memoryview(<uint8_t[:READ_SIZE]>self.received)

    cdef bint has_written(self, Channel channel) except -1:
        """Note that ``channel`` is written to; see `tornado_ws.engine.turn.Turn.has_written`."""
        if channel.step == IN_STEP and not self.turn_is_open:
            channel.step = WRITTEN_IN_STEP
            return False
        if not self.loop.is_running():
            return False
        if not self.turn_is_open:
            self.open_turn()
        elif channel.turn == self.turn:
            return True
        channel.turn = self.turn
        return False

    cdef int end_inside(self, Channel channel) except -1:
        """Have what a callback writes sent if it runs the loop; see `tornado_ws.engine.turn.Turn.end_inside`."""
        if "_nest_patched" not in _asyncio:
            return 0
        if not self.turn_is_open:
            self.open_turn()
        if channel not in self.waiting:
            self.waiting.append(channel)
        return 0

    cdef int open_turn(self) except -1:
        self.loop.call_soon(self._end_turn)
        self.turn_is_open = True
        self.turn += 1
        return 0

    def _end_turn(self):
        cdef Py_ssize_t i = 0
        cdef object interrupt = None
        cdef list ending = self.waiting
        # Not a new one, and nothing is taken out one by one: either may need memory.
        self.waiting = self._ended
        self._ended = ending
        self.turn_is_open = False
        while i < len(ending):
            try:
                PyObject_CallMethodNoArgs(ending[i], _end_turn)
            except BaseException as error:
                interrupt = error
            i += 1
        ending.clear()
        if interrupt is not None:
            raise interrupt


cdef _Buffers buffers_of(object io_loop):
    cdef dict attributes = vars(io_loop)
    buffers = attributes.get("_ws_buffers")
    if buffers is None:
        buffers = attributes["_ws_buffers"] = _Buffers(io_loop.asyncio_loop)
    return <_Buffers>buffers
