# The memory of large messages.

# The memory of large messages: fetching it page by page costs more than all else that is done with one. So the last few
# are kept, and one that nobody else has any more is written over.

cdef PyObject* _spares[SPARES]
cdef int _next_spare = 0


cdef PyObject* large_bytes(Py_ssize_t size) except NULL:
    """Return a new reference to bytes that may be written to."""
    cdef PyObject* found
    cdef int i
    if SPARE_MIN <= size <= SPARE_MAX:
        for i in range(SPARES):
            found = _spares[i]
            if found != NULL and Py_REFCNT(found) == 1 and Py_SIZE(found) == size:
                _spares[i] = NULL
                tws_forget_hash(found)
                return found
    return new_bytes(NULL, size)


cdef void keep_spare(PyObject* message) noexcept:
    """Keep a message that is delivered, in the place of the one that was kept first."""
    global _next_spare
    cdef int i
    cdef int place = _next_spare
    if SPARE_MIN <= Py_SIZE(message) <= SPARE_MAX:
        for i in range(SPARES):
            if _spares[i] == NULL:
                place = i
        if place == _next_spare:
            _next_spare = (_next_spare + 1) % SPARES
        Py_INCREF(message)
        Py_CLEAR(_spares[place])
        _spares[place] = message
