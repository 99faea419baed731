# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=False
"""The native engine: `frames.FrameReader`, `channel.Channel` and `poller.EpollPoller` in C, by the same contracts.

It knows the way of what is right and common. Whatever else turns up it gives to the functions of `frames` that say what
is a violation and how it is told, so that there is one place for that.
"""

import _ssl
import asyncio
import contextvars
import os
import ssl
import sys

from tornado.iostream import StreamClosedError

from tornado_ws.engine import reader as _frames
from tornado_ws.close_codes import MESSAGE_TOO_BIG
from tornado_ws.errors import ProtocolError

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    int _PyBytes_Resize(PyObject** obj, Py_ssize_t size) except -1
    # The same under other names, for a reference that is counted by hand: only that can be resized.
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char* data, Py_ssize_t size) except NULL
    uint8_t* bytes_data "(uint8_t*)PyBytes_AS_STRING"(PyObject* data)
    void Py_CLEAR(PyObject*)
    object PyObject_CallMethodOneArg(object obj, object name, object arg)
    object PyObject_CallMethodNoArgs(object obj, object name)
    void Py_INCREF(PyObject*)
    Py_ssize_t Py_REFCNT(PyObject*)
    Py_ssize_t Py_SIZE(PyObject*)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    unsigned long PyThread_get_thread_ident()

cdef extern from "sys/types.h":
    ctypedef long ssize_t

cdef extern from "sys/socket.h":
    ssize_t c_recv "recv"(int fd, void* buffer, size_t size, int flags) nogil
    ssize_t c_send "send"(int fd, const void* buffer, size_t size, int flags) nogil
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef extern from "native/bytes.h":
    void tws_mask(uint8_t* out, const uint8_t* data, size_t size, const uint8_t* key, size_t turn) nogil
    int tws_utf8(uint32_t* state, const uint8_t* data, size_t size) nogil
    ssize_t tws_send2(int fd, const void* head, size_t head_size, const void* rest, size_t rest_size) nogil
    int tws_epoll_wait(int epfd, int* ready, int most) nogil
    double tws_now() nogil
    void tws_forget_hash(PyObject* data) nogil

cdef extern from "native/tls.h":
    enum:
        TWS_TLS_WANTS_MORE
        TWS_TLS_ENDED
        TWS_RECORD_OVERHEAD
        TWS_RECORD_PAYLOAD
    ctypedef struct tws_tls:
        const uint8_t* in_ "in"
        size_t in_size
        uint8_t* out
        size_t out_size
        size_t out_room
    tws_tls* tws_tls_open(object sslobj, object context, const char* ssl_file, unsigned long version, int fd)
    void tws_tls_close(tws_tls* tls)
    int tws_tls_pending(const tws_tls* tls)
    size_t tws_tls_decrypt(tws_tls* tls, uint8_t* plain, size_t room, Py_ssize_t* state)
    Py_ssize_t tws_tls_encrypt(tws_tls* tls, const uint8_t* plain, size_t size)
    void tws_tls_error(char* text, size_t size)


DEF HEADER_MAX = 14
DEF CARRY_MAX = 144
DEF READ_SIZE = 65536
# Of a large payload, at once and in one turn: what is unmasked while the cache still has it, and what others wait for.
DEF LARGE_READ = 131072
DEF LARGE_TURN = 1048576
DEF CORK_SIZE = 65536
# What one read can decrypt to: its own bytes, the record that it completes, and one that was decrypted before.
DEF PLAIN_SIZE = READ_SIZE + 2 * 16384
# Records are gathered in this, and sent when one more might not have room.
DEF SEALED_SIZE = CORK_SIZE + 2 * (16384 + 2053)
DEF SEND_SIZE = 1048576
DEF ANSWERS_AT_ONCE = 16384
DEF MOST_ANSWERS = 65536
# A payload from here on is sent from where it lies, and received into where it is to lie.
DEF LARGE = 16384
# What a peer announces is believed up to here before it comes.
DEF FIRST_ALLOCATION = 1048576
# Messages of these sizes have memory of the operating system's own, which is given back and fetched anew each time.
DEF SPARE_MIN = 131072
DEF SPARE_MAX = FIRST_ALLOCATION
DEF SPARES = 4
DEF SOCKETS_PER_TURN = 256
DEF BUSY = 8

cdef enum:
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    FIN = 0x80
    RSV1 = 0x40
    MASKED = 0x80

cdef object NOT_DONE = _frames.NOT_DONE
cdef object RAISED = _frames.RAISED
cdef object VIOLATION = _frames.VIOLATION
cdef int LATER = _frames.LATER
cdef Py_ssize_t INFLATED_AT_ONCE = _frames.INFLATED_AT_ONCE
cdef tuple _ENOUGH = (_frames.ENOUGH, None, 0)
cdef object check_header = _frames.check_header
cdef object check_extended_length = _frames.check_extended_length
cdef object check_size = _frames.check_size
cdef object not_utf8 = _frames.not_utf8
cdef object too_big_inflated = _frames.too_big_inflated
cdef tuple _FAILURES = (Exception, asyncio.CancelledError)
cdef str _on_message = "on_message"
cdef int MESSAGES_PER_TURN = 256
cdef double TURN_TIME = _frames.TURN_TIME
cdef int CLOCK_STRIDE = _frames.CLOCK_STRIDE
cdef Py_ssize_t CLOCK_SIZE = _frames.CLOCK_SIZE
# How often something took long: more to hand out than there is time for, or a large message.
cdef unsigned int _enough = 0

def _set_turn_time(double seconds):
    """For who counts instructions: under an emulator a turn would end after a fiftieth of its messages."""
    global TURN_TIME
    TURN_TIME = seconds


# Masking (RFC 6455 section 5.3)

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
    """Keep a message that is handed out, in the place of the one that was kept first."""
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


# Reading

@cython.final
cdef class FrameReader:
    """Parses what one peer sends; see the contract at the head of `tornado_ws.frames`."""

    # The bytes to be parsed: inside `_chunk`, or inside a buffer of the caller's for as long as its call lasts.
    cdef const uint8_t* _data
    cdef Py_ssize_t _pos
    cdef Py_ssize_t _end
    cdef bytes _chunk
    # The beginning of a frame that came without its rest.
    cdef uint8_t* _carry
    cdef int _carried

    # The frame whose payload is coming
    cdef bint _in_payload
    cdef int _first
    cdef Py_ssize_t _left
    cdef Py_ssize_t _turn
    cdef uint8_t[4] _key
    cdef bint _masked

    # The message that it belongs to, when that did not come whole
    cdef readonly bint in_message
    cdef int _opcode
    cdef bint _compressed
    cdef PyObject* _message
    cdef Py_ssize_t _size
    cdef Py_ssize_t _room
    cdef uint32_t _utf8

    cdef bint _expect_masked
    cdef Py_ssize_t _limit
    cdef object _inflater
    # The event that `parse` found: its opcode, 0 for none, and its size.
    cdef int _event
    cdef Py_ssize_t _event_size
    cdef bint _stopped
    cdef bint _finished
    cdef public long long messages
    cdef public long long message_bytes
    cdef public long long wire_bytes

    def __init__(self, bint expect_masked, max_message_size, inflater=None):
        self._expect_masked = expect_masked
        self._limit = max(0, min(max_message_size, sys.maxsize))
        self._inflater = inflater

    def __dealloc__(self):
        PyMem_Free(self._carry)
        Py_CLEAR(self._message)

    def feed(self, bytes chunk not None):
        """Take the next bytes; they are parsed as the reader is iterated."""
        self.wire_bytes += PyBytes_GET_SIZE(chunk)
        if self._pos < self._end:
            chunk = PyBytes_FromStringAndSize(<const char*>self._data + self._pos, self._end - self._pos) + chunk
        self.take(chunk)

    cdef void take(self, bytes chunk):
        self._chunk = chunk
        self._data = <const uint8_t*>PyBytes_AS_STRING(chunk)
        self._pos = 0
        self._end = PyBytes_GET_SIZE(chunk)

    cdef void lend(self, const uint8_t* data, Py_ssize_t size):
        """Take bytes that are the caller's, who has to call `give_back` before they change."""
        self.wire_bytes += size
        if self._pos < self._end:
            self.take(PyBytes_FromStringAndSize(<const char*>self._data + self._pos, self._end - self._pos)
                      + PyBytes_FromStringAndSize(<const char*>data, size))
        else:
            self._data = data
            self._pos = 0
            self._end = size
            self._chunk = None

    cdef void give_back(self):
        """Keep what is not parsed yet of borrowed bytes."""
        if self._chunk is None:
            if self._pos < self._end:
                try:
                    self.take(PyBytes_FromStringAndSize(<const char*>self._data + self._pos, self._end - self._pos))
                except:
                    self.end()
                    raise
            else:
                self._data = NULL
                self._pos = self._end = 0

    def stop(self):
        """Hand out no more, in the call that is under way too."""
        self._stopped = True

    def __iter__(self):
        return self

    def __next__(self):
        if self._finished:
            raise StopIteration
        payload = self.step()
        return (self._event, payload, self._event_size) if self._event else None

    def hand_out(self, handler, int limit, bint timed=False):
        """Give messages to ``handler.on_message``; see `tornado_ws.engine.reader.FrameReader.hand_out`."""
        return self.hand_out_to(handler, limit, timed)

    cdef object hand_out_to(self, object handler, int limit, bint timed):
        global _enough
        cdef double until = 0
        cdef object payload
        cdef object result
        while not self._stopped and not self._finished:
            try:
                payload = self.step()
            except ProtocolError as error:
                return VIOLATION, error, 0
            if self._event == 0:
                return None
            if self._event >= CLOSE:
                return self._event, payload, self._event_size
            self.messages += 1
            self.message_bytes += self._event_size
            try:
                result = PyObject_CallMethodOneArg(handler, _on_message, payload)
            except _FAILURES:
                return RAISED, sys.exc_info(), 0
            if result is not None:
                return NOT_DONE, result, 0
            payload = None
            limit -= 1
            if limit <= 0 and not self._stopped:
                _enough += 1
                return _ENOUGH
            if self._event_size >= CLOCK_SIZE:
                _enough += 1
            elif limit & CLOCK_STRIDE:
                continue
            if timed and not self._stopped:
                if until == 0:
                    until = tws_now() + TURN_TIME
                elif tws_now() > until:
                    _enough += 1
                    return _ENOUGH
        return None

    cdef object step(self):
        """Parse up to the next event and return its payload; there is none when the bytes are at their end."""
        self._event = 0
        try:
            payload = self.parse()
            if self._event == 0:
                # An idle reader must not keep the last chunk alive.
                self._chunk = None
                self._data = NULL
                self._pos = self._end = 0
            return payload
        except:
            # Whatever it was, a MemoryError too: nobody knows any more what the next byte belongs to.
            self.end()
            raise

    cdef void end(self) noexcept:
        """Take nothing more, and let go of what there is."""
        self._finished = True
        self._chunk = None
        self._data = NULL
        self._pos = self._end = 0
        self.in_message = self._in_payload = False
        self._carried = 0
        self._size = self._room = self._left = 0
        Py_CLEAR(self._message)

    cdef object parse(self):
        cdef const uint8_t* head
        cdef Py_ssize_t have, need, size
        cdef int first, second
        cdef object payload
        while True:
            if self._in_payload:
                if self._left and not self.take_payload():
                    return None
                self._in_payload = False
                if self._first & FIN:
                    return self.end_message()
                continue

            # The header, in place where it came whole.
            if self._carried:
                if not self.fill_carry(2):
                    return None
                head = self._carry
            else:
                head = self._data + self._pos
                if self._end - self._pos < 2:
                    self.carry_rest()
                    return None
            first = head[0]
            second = head[1]
            if (
                (first != (FIN | TEXT) and first != (FIN | BINARY))
                or self.in_message
                or (second & MASKED != 0) != self._expect_masked
            ):
                check_header(first, second, bool(self.in_message), bool(self._expect_masked), self._inflater is not None)
            size = second & 0x7F
            need = 2 + (2 if size == 126 else 8 if size == 127 else 0) + (4 if second & MASKED else 0)
            if first & CLOSE:
                need += size
            if self._carried:
                if not self.fill_carry(need):
                    return None
                head = self._carry
            elif self._end - self._pos < need:
                self.carry_rest()
                return None
            if size == 126:
                size = (<Py_ssize_t>head[2] << 8) | head[3]
                if size < 126:
                    check_extended_length(bytes(head[2:4]))
            elif size == 127:
                size = check_extended_length(bytes(head[2:10]))
            if first & CLOSE:
                return self.control_event(head, first, second, need, size)
            self._masked = second & MASKED != 0
            if self._masked:
                memcpy(self._key, head + need - 4, 4)
            if self._carried:
                self._carried = 0
            else:
                self._pos += need

            if not self.in_message:
                self._compressed = first & RSV1 != 0
            if not self._compressed and size > self._limit - (self._size if self.in_message else 0):
                check_size(int(size) + int(self._size), self._limit)

            if not self.in_message and first & (FIN | RSV1) == FIN and self._end - self._pos >= size:
                payload = self.whole_message(first & 0xF, size)
                self._event = first & 0xF
                self._event_size = size
                return payload

            if not self.in_message:
                self.in_message = True
                self._opcode = first & 0xF
                self._size = 0
                self._room = 0
                self._utf8 = 0
            self._first = first
            self._left = size
            self._turn = 0
            self._in_payload = True

    cdef int carry_rest(self) except -1:
        """Put what is left, less than a header or control frame, aside until more comes."""
        cdef Py_ssize_t rest = self._end - self._pos
        if rest:
            if self._carry == NULL:
                self._carry = <uint8_t*>PyMem_Malloc(CARRY_MAX)
                if self._carry == NULL:
                    raise MemoryError
            memcpy(self._carry, self._data + self._pos, rest)
            self._carried = <int>rest
            self._pos = self._end
        return 0

    cdef bint fill_carry(self, Py_ssize_t need) noexcept:
        """Complete what was put aside to ``need`` bytes; false when they have not all come."""
        cdef Py_ssize_t missing = min(need - self._carried, self._end - self._pos)
        if missing > 0:
            memcpy(self._carry + self._carried, self._data + self._pos, missing)
            self._carried += <int>missing
            self._pos += missing
        return self._carried >= need

    cdef object control_event(self, const uint8_t* head, int first, int second, Py_ssize_t need, Py_ssize_t size):
        # Always new memory, since it is written to: of one given byte, Python would return its only instance.
        cdef bytes payload = PyBytes_FromStringAndSize(NULL, size)
        if second & MASKED:
            tws_mask(<uint8_t*>PyBytes_AS_STRING(payload), head + need - size, size, head + need - size - 4, 0)
        else:
            memcpy(PyBytes_AS_STRING(payload), head + need - size, size)
        if self._carried:
            self._carried = 0
        else:
            self._pos += need
        self._event = first & 0xF
        self._event_size = size
        return payload

    cdef object whole_message(self, int opcode, Py_ssize_t size):
        """The payload of a message that lies before us in one piece."""
        cdef const uint8_t* data = self._data + self._pos
        cdef uint8_t[512] small
        cdef bytes payload
        cdef const uint8_t* clear = data
        self._pos += size
        if opcode == TEXT:
            if self._masked:
                if size <= 512:
                    tws_mask(small, data, size, self._key, 0)
                    clear = small
                else:
                    payload = PyBytes_FromStringAndSize(NULL, size)
                    tws_mask(<uint8_t*>PyBytes_AS_STRING(payload), data, size, self._key, 0)
                    clear = <const uint8_t*>PyBytes_AS_STRING(payload)
            try:
                return PyUnicode_DecodeUTF8(<const char*>clear, size, NULL)
            except UnicodeDecodeError:
                raise not_utf8() from None
        payload = PyBytes_FromStringAndSize(NULL, size)
        if self._masked:
            tws_mask(<uint8_t*>PyBytes_AS_STRING(payload), data, size, self._key, 0)
        else:
            memcpy(PyBytes_AS_STRING(payload), data, size)
        return payload

    cdef bint take_payload(self) except -1:
        """Take what has come of the frame's payload; true when that was its end."""
        global _enough
        cdef Py_ssize_t size = self._end - self._pos
        cdef uint8_t* out
        cdef bytes piece
        if size > self._left:
            size = self._left
        if size == 0:
            return False
        if self._compressed:
            piece = PyBytes_FromStringAndSize(NULL, size)
            out = <uint8_t*>PyBytes_AS_STRING(piece)
        else:
            self.make_room(self._size + size, self._size + self._left)
            out = bytes_data(self._message) + self._size
        if self._masked:
            tws_mask(out, self._data + self._pos, size, self._key, self._turn)
            self._turn = (self._turn + size) & 3
        else:
            memcpy(out, self._data + self._pos, size)
        self._pos += size
        self._left -= size
        if self._compressed:
            piece = self._inflater.inflate(piece, self._limit - self._size)
            self.append(piece)
            while PyBytes_GET_SIZE(piece) == INFLATED_AT_ONCE:
                piece = self._inflater.inflate(b"", self._limit - self._size)
                self.append(piece)
                # Whether or not the message has come to its end.
                _enough += 1
        else:
            self.check_utf8(out, size)
            self._size += size
        return self._left == 0

    cdef int append(self, bytes piece) except -1:
        """Add what was inflated."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(piece)
        cdef Py_ssize_t room = self._limit - self._size
        self.check_utf8(<const uint8_t*>PyBytes_AS_STRING(piece), min(size, room))
        if size > room:
            raise too_big_inflated()
        if size:
            self.make_room(self._size + size, self._size + size)
            memcpy(bytes_data(self._message) + self._size, PyBytes_AS_STRING(piece), size)
            self._size += size
        return 0

    cdef int check_utf8(self, const uint8_t* data, Py_ssize_t size) except -1:
        if self._opcode == TEXT and not tws_utf8(&self._utf8, data, size):
            raise not_utf8()
        return 0

    cdef int make_room(self, Py_ssize_t needed, Py_ssize_t announced) except -1:
        """Let the message's memory hold ``needed`` bytes, and what is ``announced`` within reason."""
        cdef Py_ssize_t room = self._room
        if needed <= room:
            return 0
        if room == 0:
            room = min(max(announced, needed), max(needed, FIRST_ALLOCATION))
            self._message = large_bytes(room)
        else:
            room = max(needed, min(max(announced, needed), room * 2), min(room + (room >> 1), self._limit))
            # If this fails the message is gone, and NULL.
            self._room = 0
            _PyBytes_Resize(&self._message, room)
        self._room = room
        return 0

    cdef object end_message(self):
        cdef bytes message
        cdef Py_ssize_t size
        cdef object rest = None
        if self._compressed:
            rest = self._inflater.end_message()
        size = self._size
        self.in_message = False
        if self._message == NULL:
            message = b""
        else:
            if self._room != size:
                _PyBytes_Resize(&self._message, size)
            message = <bytes>self._message
            if self._first & 0xF and not self._compressed:
                # It came in one frame: the next one, if it is as large, will begin with memory of that size.
                keep_spare(self._message)
            Py_CLEAR(self._message)
        self._room = self._size = 0
        if rest is not None:
            self._event_size = size + <Py_ssize_t>rest.size
            self._event = self._opcode | LATER
            return rest, message
        self._event_size = size
        self._event = BINARY
        if self._opcode != TEXT:
            return message
        self._event = TEXT
        try:
            return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(message), size, NULL)
        except UnicodeDecodeError:
            raise not_utf8() from None

    # A large payload can be received into where it is to lie.

    cdef uint8_t* direct_room(self, Py_ssize_t* size):
        """Where the next bytes belong, NULL when they have to be parsed."""
        if not self._in_payload or self._compressed or self._left < LARGE or self._pos < self._end or self._finished:
            return NULL
        try:
            self.make_room(self._size + LARGE, self._size + self._left)
        except:
            self.end()
            raise
        size[0] = min(self._left, self._room - self._size)
        return bytes_data(self._message) + self._size

    cdef bint direct_received(self, Py_ssize_t size):
        """``size`` bytes were put there; false when they are no UTF-8, and the reader is finished."""
        cdef uint8_t* data = bytes_data(self._message) + self._size
        self.wire_bytes += size
        if self._masked:
            tws_mask(data, data, size, self._key, self._turn)
            self._turn = (self._turn + size) & 3
        self._left -= size
        self._size += size
        if self._opcode == TEXT and not tws_utf8(&self._utf8, data, size):
            self.end()
        return not self._finished


# Channels

cdef int check_text(const uint8_t* data, Py_ssize_t size) except -1:
    """Raise UnicodeDecodeError for bytes that are no UTF-8."""
    cdef uint32_t utf8 = 0
    if not (tws_utf8(&utf8, data, size) and utf8 & 3 == 0):
        PyUnicode_DecodeUTF8(<const char*>data, size, NULL)
    return 0


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
    cdef object view

    def __init__(self):
        self.view = memoryview(<uint8_t[:READ_SIZE]>self.received)


cdef _Buffers buffers_of(object io_loop):
    cdef dict attributes = vars(io_loop)
    buffers = attributes.get("_ws_buffers")
    if buffers is None:
        buffers = attributes["_ws_buffers"] = _Buffers()
    return <_Buffers>buffers


#: Whether channels may take OpenSSL's session from Python's ssl module, in which file that has it, and in which version;
#: for tests.
direct_tls = True
ssl_file = os.fsencode(getattr(_ssl, "__file__", ""))
openssl_version = _ssl.OPENSSL_VERSION_NUMBER


cdef class Channel:
    """The hot half of a transport; see `tornado_ws.engine.channel.Channel`."""

    cdef public object _stream
    cdef public object _receiver
    cdef public object _io_loop
    cdef public object _done
    cdef public object _backlog
    cdef public object compressor
    cdef public object tap
    cdef public object context
    cdef public int fd
    cdef public bint reading
    cdef public bint direct
    cdef public bint masked
    cdef public unsigned long thread
    cdef public long long messages
    cdef public long long message_bytes
    cdef public long long wire_bytes
    cdef FrameReader _reader
    cdef _Buffers _buffers
    cdef bint _dispatching
    cdef bint _is_tls
    # The session that we feed ourselves, and whose it is; NULL where that cannot be.
    cdef tws_tls* _tls
    cdef object _tls_owner
    # Bytes that the session has answered by itself since the kernel last had everything.
    cdef Py_ssize_t _answers

    def __init__(self, stream, receiver, bint masked, done):
        cdef bytes file
        self._stream = stream
        self._receiver = receiver
        self._io_loop = stream.io_loop
        self._done = done
        self.masked = masked
        self.context = contextvars.copy_context()
        self.fd = stream.socket.fileno()
        self.thread = PyThread_get_thread_ident()
        self._is_tls = isinstance(stream.socket, ssl.SSLSocket)
        self._buffers = buffers_of(self._io_loop)
        if self._is_tls and direct_tls and type(stream.socket._sslobj) is _ssl._SSLSocket:
            self._tls_owner = stream.socket._sslobj
            file = ssl_file
            self._tls = tws_tls_open(self._tls_owner, self._tls_owner.context, file, openssl_version, self.fd)

    def __dealloc__(self):
        if self._tls != NULL:
            tws_tls_close(self._tls)

    @property
    def reader(self):
        return self._reader

    @reader.setter
    def reader(self, FrameReader reader):
        self._reader = reader

    @property
    def has_tls_session(self):
        """Whether records are opened and sealed here, not in Python's ssl module."""
        return self._tls != NULL

    @property
    def _corked_size(self):
        return self._buffers.corked_size if self._buffers.corking is self else 0

    # In

    def handle_events(self):
        """Read and write what can be; called when the socket may be ready."""
        self.serve()

    cdef int serve(self) except -1:
        try:
            if self._backlog is not None:
                self._flush()
            if self.reading and self.fd >= 0:
                self.receive()
        except BaseException as error:
            self._handling_failed(error)
            if not isinstance(error, Exception):
                raise
        return 0

    cdef int receive(self) except -1:
        cdef _Buffers buffers = self._buffers
        cdef Py_ssize_t size = 0
        cdef ssize_t count
        cdef uint8_t* room = NULL
        cdef bytes chunk
        if self._is_tls:
            return self.receive_tls() if self._tls == NULL else self.receive_sealed()
        room = self._reader.direct_room(&size)
        if room != NULL:
            self.receive_large(room, size)
        elif buffers.parsing:
            chunk = PyBytes_FromStringAndSize(NULL, LARGE)
            count = self.recv_into(<uint8_t*>PyBytes_AS_STRING(chunk), LARGE)
            if count > 0:
                self.dispatch(self._take, chunk[:count])
        else:
            count = self.recv_into(buffers.received, READ_SIZE)
            if count > 0:
                self.take(buffers.received, count)
        return 0

    cdef int receive_large(self, uint8_t* room, Py_ssize_t size) except -1:
        """Receive into the message itself, ``size`` bytes at most."""
        cdef FrameReader reader = self._reader
        cdef Py_ssize_t turn = min(size, LARGE_TURN)
        cdef Py_ssize_t asked = 0
        cdef ssize_t count = 0
        cdef bint valid = True
        while valid and turn and count == asked:
            asked = min(turn, LARGE_READ)
            count = self.recv_into(room, asked)
            if count <= 0:
                return 0
            if self.tap is not None:
                self.tap.received(PyBytes_FromStringAndSize(<const char*>room, count))
            valid = reader.direct_received(count)
            room += count
            turn -= count
        if not valid:
            self.dispatch(self._hand_out, (VIOLATION, not_utf8(), 0))
        elif not reader._left:
            self.dispatch(self._hand_out, None)
        return 0

    cdef ssize_t recv_into(self, uint8_t* room, Py_ssize_t size) except -2:
        """Return how many bytes came, and zero or less when none did; an end is told to the receiver."""
        cdef ssize_t count = c_recv(self.fd, room, size, MSG_DONTWAIT)
        if count == 0:
            self._end_reading(None)
        elif count < 0 and errno != EAGAIN and errno != EINTR:
            self._end_reading(OSError(errno, os.strerror(errno)))
        return count

    cdef int receive_tls(self) except -1:
        """As `receive`, through OpenSSL, which gives a record at a time and may hold more than the descriptor tells."""
        cdef _Buffers buffers = self._buffers
        cdef Py_ssize_t size = 0
        tls = self._stream.socket._sslobj
        view = buffers.view
        if buffers.parsing:
            view = memoryview(bytearray(LARGE))
        try:
            while True:
                count = tls.read(len(view) - size, view[size:] if size else view)
                size += <Py_ssize_t>count
                if not count or size == len(view) or not tls.pending():
                    break
        except ssl.SSLWantReadError:
            count = None
        except ssl.SSLError as error:
            # As Python's own SSLSocket: an end without close_notify is an end.
            count = 0
            if error.errno != ssl.SSL_ERROR_EOF:
                count = error
        except OSError as error:
            count = error
        if size:
            if buffers.parsing:
                self.dispatch(self._take, bytes(view[:size]))
            else:
                self.take(buffers.received, size)
            if size == len(view):
                self._io_loop.add_callback(self.handle_events)
        if self.fd >= 0 and count is not None:
            if isinstance(count, OSError):
                self._end_reading(count)
            elif not count:
                self._end_reading(None)
        return 0

    cdef int receive_sealed(self) except -1:
        """As `receive`, through a session of which we hold both ends."""
        cdef _Buffers buffers = self._buffers
        cdef uint8_t* cipher = buffers.cipher
        cdef uint8_t* plain = buffers.received
        cdef bytes own_cipher, own_plain
        cdef Py_ssize_t size, state
        cdef bint own = buffers.parsing
        if own:
            own_cipher = PyBytes_FromStringAndSize(NULL, READ_SIZE)
            own_plain = PyBytes_FromStringAndSize(NULL, PLAIN_SIZE)
            cipher = <uint8_t*>PyBytes_AS_STRING(own_cipher)
            plain = <uint8_t*>PyBytes_AS_STRING(own_plain)
        cdef ssize_t count = self.recv_into(cipher, READ_SIZE)
        if self.fd < 0 or not self.reading or (count < 0 and not tws_tls_pending(self._tls)):
            return 0
        self._tls.in_ = cipher
        self._tls.in_size = max(count, 0)
        self.gather()
        # A renegotiation has room in it. Hundreds of changes of keys in one chunk have not, and fail.
        self._tls.out_room = ANSWERS_AT_ONCE
        size = tws_tls_decrypt(self._tls, plain, PLAIN_SIZE, &state)
        cdef Py_ssize_t answer = self._tls.out_size
        try:
            # A renegotiation or a change of keys has an answer.
            self.send_gathered()
        finally:
            self._tls.out = NULL
            self._tls.in_ = NULL
            self._tls.in_size = 0
        if size:
            if own:
                self.dispatch(self._take, own_plain[:size])
            else:
                self.take(plain, size)
        if self._backlog is None:
            self._answers = 0
        else:
            self._answers += answer
        if self.fd >= 0 and self._answers > MOST_ANSWERS:
            self._end_reading(ssl.SSLError(ssl.SSL_ERROR_SSL, "asks for change after change of keys and takes no answer"))
        elif self.fd >= 0 and state != TWS_TLS_WANTS_MORE:
            self._end_reading(None if state == TWS_TLS_ENDED else self.tls_error())
        return 0

    cdef object tls_error(self):
        cdef char[256] text
        tws_tls_error(text, sizeof(text))
        return ssl.SSLError(ssl.SSL_ERROR_SSL, text.decode("ascii", "replace"))

    def _take(self, bytes chunk):
        if self.tap is not None:
            self.tap.received(chunk)
        self._reader.feed(chunk)
        self.hand_out(None)

    cdef int take(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Parse what was received and hand it out."""
        cdef object context = self.context
        cdef _Buffers buffers = self._buffers
        cdef FrameReader reader = self._reader
        if self.tap is not None:
            self.tap.received(PyBytes_FromStringAndSize(<const char*>data, size))
        if self._dispatching:
            reader.feed(PyBytes_FromStringAndSize(<const char*>data, size))
            self.hand_out(None)
            return 0
        self.begin(context)
        try:
            buffers.parsing = True
            try:
                reader.lend(data, size)
                self.hand_out(None)
            finally:
                buffers.parsing = False
                reader.give_back()
        finally:
            self.finish(context)
        return 0

    def _hand_out(self, outcome):
        self.hand_out(outcome)

    cdef int hand_out(self, object outcome) except -1:
        if outcome is None and self.direct:
            outcome = self._reader.hand_out_to(self._receiver.handler, MESSAGES_PER_TURN, True)
            if outcome is None:
                return 0
        self._receiver.advance(outcome)
        return 0

    cdef int begin(self, object context) except -1:
        PyContext_Enter(context)
        self._dispatching = True
        if self._buffers.corking is None:
            self._buffers.corking = self
            self._buffers.corked_size = 0
        return 0

    cdef int finish(self, object context) except -1:
        self._dispatching = False
        PyContext_Exit(context)
        if self._buffers.corking is self:
            try:
                self.uncork()
            finally:
                self._buffers.corking = None
        return 0

    def dispatch(self, callback, *args):
        """Call in the connection's context; what is written meanwhile goes to the socket together, at the end.

        An exception aborts the connection and goes no further; see `tornado_ws.engine.channel.Channel`.
        """
        if self._dispatching:
            callback(*args)
            return
        context = self.context
        try:
            self.begin(context)
            try:
                callback(*args)
            finally:
                self.finish(context)
        except BaseException as error:
            self._handling_failed(error)
            if not isinstance(error, Exception):
                raise

    # Out

    def check_thread(self):
        """Raise RuntimeError in another thread than the connection's."""
        if PyThread_get_thread_ident() != self.thread:
            self._change_thread()

    def write_message(self, message, bint binary, bint compress):
        """Send one message; see `write` for the Future. Raises ValueError for text that is not UTF-8."""
        return self.send(message, binary, compress)

    cdef object send(self, object message, bint binary, bint compress):
        cdef const uint8_t* data
        cdef Py_ssize_t size
        cdef Py_buffer view
        if compress and self.compressor is not None:
            return self.send_compressed(message, binary)
        if isinstance(message, str):
            data = <const uint8_t*>PyUnicode_AsUTF8AndSize(message, &size)
            return self.put_message(data, size, binary, None)
        if isinstance(message, bytes):
            data = <const uint8_t*>PyBytes_AS_STRING(message)
            size = PyBytes_GET_SIZE(message)
            if not binary:
                check_text(data, size)
            # A subclass may do as it likes with its memory: its bytes are copied where they have to wait.
            return self.put_message(data, size, binary, message if type(message) is bytes else None)
        if not memoryview(message).c_contiguous:
            message = bytes(message)
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            if not binary:
                check_text(<const uint8_t*>view.buf, view.len)
            return self.put_message(<const uint8_t*>view.buf, view.len, binary, None)
        finally:
            PyBuffer_Release(&view)

    cdef object send_compressed(self, object message, bint binary):
        cdef bytes payload
        cdef Py_ssize_t size
        cdef int first_byte = FIN | BINARY if binary else FIN | TEXT
        if PyThread_get_thread_ident() != self.thread:
            self._change_thread()
        if self._backlog is not None:
            refused = self.refuse()
            if refused is not None:
                return refused
        payload = _frames.encode_message(message, binary)
        size = PyBytes_GET_SIZE(payload)
        if size >= <Py_ssize_t>self.compressor.threshold:
            first_byte |= RSV1
            payload = self.compressor.compress(payload)
        future = self.put(first_byte, <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), payload)
        self.messages += 1
        self.message_bytes += size
        return future

    cdef object put_message(self, const uint8_t* data, Py_ssize_t size, bint binary, bytes owner):
        if self._backlog is not None:
            refused = self.refuse()
            if refused is not None:
                return refused
        future = self.put(FIN | BINARY if binary else FIN | TEXT, data, size, owner)
        self.messages += 1
        self.message_bytes += size
        return future

    def write_frame(self, int first_byte, bytes payload not None):
        """Send one frame; see `write`."""
        return self.put(first_byte, <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), payload)

    cdef object put(self, int first_byte, const uint8_t* payload, Py_ssize_t size, bytes owner):
        """Send a frame. ``owner`` is whose memory the payload is, None if it may change once this returns."""
        cdef _Buffers buffers = self._buffers
        cdef bint corking = buffers.corking is self
        cdef uint8_t[LARGE + HEADER_MAX] small
        cdef Py_ssize_t frame
        cdef bytes whole, head
        if self.tap is not None:
            return self.put_and_show(first_byte, payload, size, owner)
        if self.fd < 0:
            raise StreamClosedError(self._stream.error)
        if PyThread_get_thread_ident() != self.thread:
            self._change_thread()
        if self._backlog is None:
            if size < LARGE:
                if corking:
                    if buffers.corked_size + size + HEADER_MAX > CORK_SIZE:
                        self.uncork()
                    if self._backlog is None and self.fd >= 0:
                        frame = put_frame(buffers.corked + buffers.corked_size, first_byte, payload, size, self.masked)
                        buffers.corked_size += frame
                        self.wire_bytes += frame
                        return self._done
                else:
                    frame = put_frame(small, first_byte, payload, size, self.masked)
                    self.wire_bytes += frame
                    return self.offer(small, frame, NULL, 0, None)
            elif not self.masked and (not self._is_tls or self._tls != NULL):
                if corking:
                    if buffers.corked_size + HEADER_MAX > CORK_SIZE:
                        self.uncork()
                    if self._backlog is None and self.fd >= 0:
                        frame = put_header(buffers.corked + buffers.corked_size, first_byte, size, False)
                        self.wire_bytes += frame + size
                        frame += buffers.corked_size
                        buffers.corked_size = 0
                        return self.offer(buffers.corked, frame, payload, size, owner)
                else:
                    frame = put_header(small, first_byte, size, False)
                    self.wire_bytes += frame + size
                    return self.offer(small, frame, payload, size, owner)
        if size >= LARGE and owner is not None and not self.masked and not self._is_tls:
            # It waits behind others: by a reference.
            head = PyBytes_FromStringAndSize(<const char*>small, put_header(small, first_byte, size, False))
            self._check_room(PyBytes_GET_SIZE(head) + size)
            self.wire_bytes += PyBytes_GET_SIZE(head) + size
            return self._keep(head, 0, owner)
        whole = frame_of(first_byte, payload, size, self.masked)
        self.wire_bytes += PyBytes_GET_SIZE(whole)
        return self.write_whole(whole)

    cdef object put_and_show(self, int first_byte, const uint8_t* payload, Py_ssize_t size, bytes owner):
        """As `put`, and then show the frame to the tap."""
        cdef object tap = self.tap
        self.tap = None
        try:
            future = self.put(first_byte, payload, size, owner)
        finally:
            self.tap = tap
        tap.sent(first_byte, PyBytes_FromStringAndSize(<const char*>payload, size))
        return future

    def write(self, bytes data not None):
        """Send ``data``; see `tornado_ws.engine.channel.Channel.write`."""
        return self.write_whole(data)

    cdef object write_whole(self, bytes data):
        cdef _Buffers buffers = self._buffers
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if self.fd < 0:
            raise StreamClosedError(self._stream.error)
        if buffers.corking is self and self._backlog is None:
            if buffers.corked_size + size <= CORK_SIZE:
                memcpy(buffers.corked + buffers.corked_size, PyBytes_AS_STRING(data), size)
                buffers.corked_size += size
                return self._done
            self.uncork()
        return self._offer(data)

    def _offer(self, bytes data):
        return self.offer(NULL, 0, <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), data)

    cdef object offer(
        self, const uint8_t* head, Py_ssize_t head_size, const uint8_t* rest, Py_ssize_t rest_size, bytes owner
    ):
        """Send two pieces of memory, either may be empty; what the kernel does not take is kept."""
        cdef ssize_t count = 0
        if self._backlog is not None:
            self._check_room(head_size + rest_size)
        if self._tls != NULL:
            self.gather()
            try:
                future = self.seal(head, head_size)
                if rest_size:
                    future = self.seal(rest, rest_size)
                if self.fd >= 0:
                    future = self.send_gathered()
            finally:
                self._tls.out = NULL
            return future
        if self._backlog is None:
            if self._is_tls:
                count = self._send(owner if head_size == 0 else PyBytes_FromStringAndSize(<const char*>head, head_size))
            elif rest_size == 0:
                count = self.sent(c_send(self.fd, head, head_size, MSG_DONTWAIT | MSG_NOSIGNAL))
            elif head_size == 0:
                count = self.sent(c_send(self.fd, rest, rest_size, MSG_DONTWAIT | MSG_NOSIGNAL))
            else:
                count = self.sent(tws_send2(self.fd, head, head_size, rest, rest_size))
            if count == head_size + rest_size:
                return self._done
        return self.keep_rest(head, head_size, rest, rest_size, owner, count)

    cdef object keep_rest(
        self, const uint8_t* head, Py_ssize_t head_size, const uint8_t* rest, Py_ssize_t rest_size, bytes owner,
        Py_ssize_t count
    ):
        """Keep what is behind ``count`` bytes of two pieces of memory."""
        try:
            if count < head_size:
                kept = PyBytes_FromStringAndSize(<const char*>head + count, head_size - count)
                if rest_size and owner is None:
                    owner = PyBytes_FromStringAndSize(<const char*>rest, rest_size)
                return self._keep(kept, 0, owner or b"")
            count -= head_size
            if owner is not None:
                return self._keep(owner, count)
            return self._keep(PyBytes_FromStringAndSize(<const char*>rest + count, rest_size - count))
        except:
            # A part of it may be with the kernel: what is written next would stand inside a frame or a record.
            self._stream.close()
            raise

    cdef void gather(self):
        """Let what the session writes be gathered, until its ``out`` is NULL again."""
        self._tls.out = self._buffers.sealed
        self._tls.out_size = 0
        self._tls.out_room = SEALED_SIZE

    cdef object seal(self, const uint8_t* data, Py_ssize_t size):
        """Encrypt; what does not fit is sent."""
        cdef Py_ssize_t count
        while size and self.fd >= 0:
            if SEALED_SIZE - self._tls.out_size < TWS_RECORD_PAYLOAD + TWS_RECORD_OVERHEAD:
                self.send_gathered()
                continue
            count = tws_tls_encrypt(self._tls, data, size)
            if count <= 0:
                self._stream.close(exc_info=self.tls_error())
                break
            data += count
            size -= count
        return self._done if self.fd >= 0 else self._keep(b"")

    cdef object send_gathered(self):
        """Send what was gathered; what the kernel does not take is kept as it is, encrypted."""
        cdef size_t size = self._tls.out_size
        cdef size_t count = 0
        self._tls.out_size = 0
        if size and self._backlog is None:
            count = self.sent(c_send(self.fd, self._buffers.sealed, size, MSG_DONTWAIT | MSG_NOSIGNAL))
        if count == size:
            return self._done
        return self.keep_rest(self._buffers.sealed, size, NULL, 0, None, count)

    cdef ssize_t sent(self, ssize_t count) except -1:
        if count >= 0:
            return count
        if errno != EAGAIN and errno != EINTR:
            self._stream.close(exc_info=OSError(errno, os.strerror(errno)))
        return 0

    def _send(self, data):
        """Offer ``data`` to the kernel; returns how many bytes it took. An error closes the stream."""
        cdef const uint8_t[::1] view
        if not self._is_tls or self._tls != NULL:
            view = data
            return self.sent(c_send(self.fd, &view[0], view.shape[0], MSG_DONTWAIT | MSG_NOSIGNAL))
        cdef Py_ssize_t total = 0
        whole = memoryview(data)
        try:
            # It takes one record at a time.
            while total < min(len(whole), SEND_SIZE):
                total += <Py_ssize_t>self._stream.socket._sslobj.write(whole[total:])
        except ssl.SSLWantWriteError:
            pass
        except OSError as error:
            self._stream.close(exc_info=error)
        finally:
            whole.release()
        return total

    cdef int uncork(self) except -1:
        """Send what is corked."""
        cdef Py_ssize_t size = self._buffers.corked_size
        self._buffers.corked_size = 0
        if size and self.fd >= 0:
            self.offer(self._buffers.corked, size, NULL, 0, None)
        return 0

    def _take_corked(self):
        """Return what is corked, which is then the caller's to send."""
        cdef Py_ssize_t size = self._buffers.corked_size
        if self._buffers.corking is not self:
            return b""
        self._buffers.corked_size = 0
        return PyBytes_FromStringAndSize(<const char*>self._buffers.corked, size)


@cython.auto_pickle(False)
cdef class Sender:
    """What an application writes to; see `tornado_ws.engine.channel.Sender`."""

    cdef public Channel _out

    def is_closing(self):
        """Return True once either side has begun to close, or the stream is closed."""
        return (self._out is None or self._out.fd < 0) and self._is_closing()

    def write_message(self, message, binary=False, *, compress=True):
        """Send a message; see `.WebSocketHandler.write_message`.

        Raises `WebSocketClosedError` when a close frame was sent or the connection is lost, and ValueError for bytes
        that are to go as text and are not UTF-8.
        """
        if self._out is not None and self._out.fd >= 0 and (isinstance(message, str) or isinstance(message, bytes)):
            return self._out.send(message, binary, compress)
        return self._write_message(message, binary, compress)


def send_to_all(senders, bytes frame not None, Py_ssize_t size):
    """Send a message to those that need no more than its frame; see `tornado_ws.engine.channel.send_to_all`."""
    cdef unsigned long thread = PyThread_get_thread_ident()
    cdef Channel out
    cdef object known = None
    cdef int count = 0
    cdef list others = []
    for sender in senders:
        if type(sender) is not known and isinstance(sender, Sender):
            if type(sender).write_message is Sender.write_message:
                known = type(sender)
        out = (<Sender>sender)._out if type(sender) is known else None
        if (
            out is None
            or out.fd < 0
            or out.masked
            or out.compressor is not None
            or out._backlog is not None
            or out.tap is not None
        ):
            others.append(sender)
            continue
        if thread != out.thread:
            out._change_thread()
        out.write_whole(frame)
        out.messages += 1
        out.message_bytes += size
        out.wire_bytes += PyBytes_GET_SIZE(frame)
        count += 1
    return count, others


def serve_ready(epoll, dict channels, list late):
    """Call ``handle_events`` of the channels that are ready; see `tornado_ws.engine.channel.serve_ready`."""
    cdef int[SOCKETS_PER_TURN] ready
    cdef int left = SOCKETS_PER_TURN
    cdef int i
    cdef int count = BUSY
    cdef unsigned int enough = _enough
    cdef double until = 0
    if len(channels) == 1:
        # It is this one: the epoll has nothing else to tell of.
        for channel in list(channels.values()):
            (<Channel?>channel).serve()
        return
    if late:
        fds = late[:]
        late.clear()
        until = tws_now() + TURN_TIME
        left -= <int>len(fds)
        for i in range(<int>len(fds)):
            channel = channels.get(fds[i])
            if channel is not None:
                (<Channel?>channel).serve()
                if tws_now() > until:
                    late += fds[i + 1:]
                    return
    # Where many are ready others will be by then, and another look costs less than another turn of the loop.
    while count >= BUSY and left > 0 and not epoll.closed:
        count = tws_epoll_wait(epoll.fileno(), ready, left)
        left -= count
        for i in range(count):
            # One that was closed by another's callback is no longer there.
            channel = channels.get(ready[i])
            if channel is not None:
                (<Channel?>channel).serve()
                # The clock is read where there may be something to see: a call of it costs as much as a small frame.
                if i & CLOCK_STRIDE == CLOCK_STRIDE or enough != _enough:
                    enough = _enough
                    if until == 0:
                        until = tws_now() + TURN_TIME
                    elif tws_now() > until:
                        late += [ready[j] for j in range(i + 1, count)]
                        return
