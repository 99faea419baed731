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

    def __init__(self, loop):
        self.loop = loop
        self.view = memoryview(<uint8_t[:READ_SIZE]>self.received)


cdef _Buffers buffers_of(object io_loop):
    cdef dict attributes = vars(io_loop)
    buffers = attributes.get("_ws_buffers")
    if buffers is None:
        buffers = attributes["_ws_buffers"] = _Buffers(io_loop.asyncio_loop)
    return <_Buffers>buffers
