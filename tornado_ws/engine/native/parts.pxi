# Text in parts.

cdef Py_ssize_t unfinished(const uint8_t* text, Py_ssize_t size) noexcept:
    """How many bytes at the end begin a character and do not end it; see `tornado_ws.engine.parts.unfinished`."""
    cdef Py_ssize_t back
    cdef uint8_t byte
    for back in range(1, min(size, 3) + 1):
        byte = text[size - back]
        if byte < 0x80:
            return 0
        if byte >= 0xC0:
            return back if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else 0
    return 0
