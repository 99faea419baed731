# Messages that wait while the application is busy, as in tornado_ws/engine/read_ahead.py.

@cython.auto_pickle(False)
@cython.final
cdef class ReadAhead:
    """A queue that says when it is full; see `tornado_ws.engine.read_ahead.ReadAhead`."""

    cdef object _events
    cdef Py_ssize_t _bytes
    cdef Py_ssize_t _most_messages
    cdef Py_ssize_t _most_bytes

    def __init__(self, most_messages, most_bytes):
        self._most_messages = min(most_messages, sys.maxsize)
        self._most_bytes = min(most_bytes, sys.maxsize)
        self._events = collections.deque()

    def __len__(self):
        return len(self._events)

    cpdef int put(self, tuple event) except -1:
        self._events.append(event)
        self._bytes += <Py_ssize_t>event[2]
        return 0

    cpdef tuple get(self):
        cdef tuple event = self._events.popleft()
        self._bytes -= <Py_ssize_t>event[2]
        return event

    cpdef bint is_full(self) except -1:
        return len(self._events) >= self._most_messages or self._bytes >= self._most_bytes

    cpdef bint has_enough(self) except -1:
        return len(self._events) >= ENOUGH_AHEAD or self.is_full()

    def fill(self, FrameReader reader not None, int limit):
        """Take messages until this is full; see `tornado_ws.engine.read_ahead.ReadAhead.fill`."""
        return self.fill_from(reader, limit)

    cdef object fill_from(self, FrameReader reader, int limit):
        global _enough
        cdef double until = 0
        cdef object payload
        while not reader._finished and not self.is_full():
            payload = reader.step()
            if reader._event == 0:
                return None
            event = reader._event, payload, reader._event_size
            if CLOSE <= reader._event < DEFERRED:
                return event
            self.put(event)
            limit -= 1
            if limit <= 0:
                return _BUDGET_SPENT
            if reader._event_size >= CLOCK_SIZE:
                _enough += 1
            elif limit & CLOCK_STRIDE:
                continue
            if until == 0:
                until = tws_now() + TURN_TIME
            elif tws_now() > until:
                _enough += 1
                return _BUDGET_SPENT
        return None

    def deliver(self, FrameReader reader not None, handler, bint steps):
        """Give a message to ``handler.on_message``; see `tornado_ws.engine.read_ahead.ReadAhead.deliver`."""
        return self.deliver_to(reader, handler, steps)

    cdef object deliver_to(self, FrameReader reader, handler, bint steps):
        cdef tuple event = self.get()
        cdef object result
        cdef object failed = None
        if <int>event[0] >= DEFERRED:
            return event
        reader.messages += 1
        reader.message_bytes += <Py_ssize_t>event[2]
        try:
            result = PyObject_CallMethodOneArg(handler, _on_message, event[1])
            if steps and PyCoro_CheckExact(result):
                result = step_coroutine(result)
                if result is not None:
                    failed = SUSPENDED, result, 0
            elif result is not None and is_done(result):
                result = None
        except _FAILURES as error:
            failed = result = RAISED, [error], 0
        if result is None:
            return None
        return (PENDING, result, 0) if failed is None else failed
