# Masking keys, and messages to frames (RFC 6455 section 5).

cdef uint8_t[4096] _keys
cdef int _keys_left = 0

cdef int next_key(uint8_t* key) except -1:
    """Draw a masking key: from the operating system, a page of them at a time."""
    global _keys_left
    cdef bytes drawn
    if _keys_left < 4:
        drawn = os.urandom(4096)
        memcpy(_keys, PyBytes_AS_STRING(drawn), 4096)
        _keys_left = 4096
    _keys_left -= 4
    memcpy(key, _keys + _keys_left, 4)
    return 0


def _forget_keys():
    """After a fork parent and child must not mask alike."""
    global _keys_left
    _keys_left = 0


os.register_at_fork(after_in_child=_forget_keys)


def apply_mask(bytes mask, data):
    """Return ``data`` with ``mask`` applied. Raises ValueError unless the mask has 4 bytes."""
    if len(mask) != 4:
        raise ValueError("mask must be 4 bytes")
    cdef const uint8_t[::1] view = data
    cdef bytes out = PyBytes_FromStringAndSize(NULL, view.shape[0])
    if view.shape[0]:
        tws_mask(<uint8_t*>PyBytes_AS_STRING(out), &view[0], view.shape[0], <uint8_t*>PyBytes_AS_STRING(mask), 0)
    return out


# Encoding

cdef Py_ssize_t put_header(uint8_t* out, int first_byte, size_t size, bint masked) noexcept nogil:
    cdef int mask_bit = MASKED if masked else 0
    cdef int i
    out[0] = <uint8_t>first_byte
    if size < 126:
        out[1] = <uint8_t>(mask_bit | size)
        return 2
    if size <= 0xFFFF:
        out[1] = <uint8_t>(mask_bit | 126)
        out[2] = <uint8_t>(size >> 8)
        out[3] = <uint8_t>(size & 0xFF)
        return 4
    out[1] = <uint8_t>(mask_bit | 127)
    for i in range(8):
        out[2 + i] = <uint8_t>((<uint64_t>size >> (56 - 8 * i)) & 0xFF)
    return 10


cdef Py_ssize_t put_frame(uint8_t* out, int first_byte, const uint8_t* payload, size_t size, bint masked) except -1:
    """Write a frame to ``out``, which has room for HEADER_MAX bytes more than the payload; return its size."""
    cdef Py_ssize_t header = put_header(out, first_byte, size, masked)
    if masked:
        next_key(out + header)
        tws_mask(out + header + 4, payload, size, out + header, 0)
        return header + 4 + size
    memcpy(out + header, payload, size)
    return header + size


cdef bytes frame_of(int first_byte, const uint8_t* payload, size_t size, bint masked):
    cdef Py_ssize_t header = (2 if size < 126 else 4 if size <= 0xFFFF else 10) + (4 if masked else 0)
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, header + size)
    put_frame(<uint8_t*>PyBytes_AS_STRING(frame), first_byte, payload, size, masked)
    return frame


def encode_frame(int first_byte, bytes payload, bint masked):
    """Return one frame; ``first_byte`` is FIN, the reserved bits and the opcode."""
    return frame_of(first_byte, <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), masked)
