# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=False
"""`deflate_streams.Deflater` and `Inflater` over zlib or zlib-ng themselves, by the same contracts.

A stream of theirs tells what is in its window, so neither is kept beside it; and it tells where a block ends, so that an
inflater goes on from message to message, where the Python modules would need a new one for each.

Both directions are in one file, though a long one, since they share how a stream begins, ends and keeps its history.
"""

import os

from tornado_ws.deflate.module_streams import MAX_FINALS as _MAX_FINALS, MAX_HISTORY as _MAX_HISTORY, check_finals

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy


cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject** obj, Py_ssize_t size) except -1
    # The same under another name, for a reference that is counted by hand: only that can be resized.
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char* data, Py_ssize_t size) except NULL
    uint8_t* bytes_data "(uint8_t*)PyBytes_AS_STRING"(PyObject* data)
    void Py_CLEAR(PyObject*)

cdef extern from "libz.h":
    enum:
        TWS_Z_SYNC_FLUSH
        TWS_Z_FULL_FLUSH
        TWS_Z_OK
        TWS_Z_STREAM_END
        TWS_Z_DATA_ERROR
        TWS_Z_BUF_ERROR
        TWS_Z_BETWEEN_BLOCKS
    ctypedef struct tws_zstream:
        const uint8_t* next_in
        unsigned int avail_in
        unsigned long total_in
        uint8_t* next_out
        unsigned int avail_out
        unsigned long total_out
        const char* msg
        int data_type
    ctypedef struct tws_zlib:
        int (*deflate)(tws_zstream*, int) nogil
        int (*inflate)(tws_zstream*, int) nogil
        int (*deflate_end)(tws_zstream*)
        int (*inflate_end)(tws_zstream*)
        int (*deflate_set_dictionary)(tws_zstream*, const uint8_t*, unsigned int)
        int (*inflate_set_dictionary)(tws_zstream*, const uint8_t*, unsigned int)
        int (*deflate_get_dictionary)(tws_zstream*, uint8_t*, unsigned int*)
        int (*inflate_get_dictionary)(tws_zstream*, uint8_t*, unsigned int*)
        int (*inflate_reset_keep)(tws_zstream*)
    int tws_zlib_open(tws_zlib* zlib, const char* file, const char* prefix)
    int tws_deflate_init(const tws_zlib*, tws_zstream*, int level, int wbits, int mem_level, int strategy)
    int tws_inflate_init(const tws_zlib*, tws_zstream*, int wbits)


DEF WINDOW = 32768
# Messages from here on are worked on without the GIL, into memory of their own.
DEF LARGE = 4096
# Room for what one below that becomes, deflated or, as a rule, inflated.
DEF SCRATCH = 16384
# A window, and what zlib and zlib-ng take to inflate beside it.
DEF INFLATER_SIZE = WINDOW + 8192

cdef const uint8_t* TAIL = <const uint8_t*>b"\x00\x00\xff\xff"
# The same as a number, and what is no end of it.
DEF TAIL_NUMBER = 0x0000FFFF
DEF NO_TAIL = 0xFFFFFFFF
# An empty final block. A stream ends there at once, but only if it stands between two blocks.
cdef const uint8_t* FINAL_BLOCK = <const uint8_t*>b"\x01\x00\x00\xff\xff"
cdef Py_ssize_t MAX_FINALS = _MAX_FINALS
cdef Py_ssize_t MAX_HISTORY = _MAX_HISTORY
cdef uint8_t[SCRATCH] scratch
cdef uint8_t[WINDOW] window


@cython.final
cdef class Library:
    """zlib or zlib-ng, as a Python module has loaded it. Raises ImportError where it lacks something."""

    cdef tws_zlib functions
    cdef readonly object error

    def __cinit__(self, module, str prefix):
        path = os.fsencode(getattr(module, "__file__", None) or "")
        self.error = module.error
        if not tws_zlib_open(&self.functions, path, prefix.encode()):
            raise ImportError(f"{module.__name__} does not show its functions")

    def make_deflater(self, level, wbits, mem_level, strategy, memory, history, admit):
        return Deflater(self, level, wbits, mem_level, strategy, memory, history, admit)

    def make_inflater(self, wbits, history, admit):
        return Inflater(self, wbits, history, admit)


@cython.auto_pickle(False)
cdef class _Stream:
    """What both directions have: the library's stream, or what is needed to begin one."""

    cdef object __weakref__
    cdef Library library
    cdef tws_zlib* zlib
    cdef tws_zstream* stream
    # The library's, for the direction.
    cdef int (*finish)(tws_zstream*)
    cdef int (*set_dictionary)(tws_zstream*, const uint8_t*, unsigned int)
    cdef int (*get_dictionary)(tws_zstream*, uint8_t*, unsigned int*)
    cdef bytes kept
    cdef Py_ssize_t most_kept
    # Bytes at the end of the window that what follows may refer to.
    cdef Py_ssize_t known
    cdef object admit
    cdef int wbits
    # Whether another thread must not freeze it now.
    cdef bint busy
    # Whether it is to be frozen when this message is done.
    cdef bint passing
    cdef public bint used
    cdef readonly Py_ssize_t memory

    @property
    def live(self):
        return self.stream != NULL

    @property
    def history(self):
        cdef unsigned int size = 0
        if self.stream == NULL:
            return self.kept
        self.get_dictionary(self.stream, window, &size)
        return (<char*>window)[max(0, <Py_ssize_t>size - min(self.most_kept, self.known)):size]

    cdef int begin(self) except -1:
        cdef Py_ssize_t size = min(PyBytes_GET_SIZE(self.kept), <Py_ssize_t>1 << self.wbits)
        cdef const uint8_t* end = <const uint8_t*>PyBytes_AS_STRING(self.kept) + PyBytes_GET_SIZE(self.kept)
        self.stream = <tws_zstream*>PyMem_Malloc(sizeof(tws_zstream))
        if self.stream == NULL:
            raise MemoryError
        if self.init() != TWS_Z_OK:
            PyMem_Free(self.stream)
            self.stream = NULL
            raise MemoryError
        if size and self.set_dictionary(self.stream, end - size, <unsigned int>size) != TWS_Z_OK:
            self.drop()
            raise MemoryError
        self.kept = b""
        self.busy = True
        # Until it is admitted: a finalizer that runs in there may use the stream, and must not freeze it.
        self.passing = False
        try:
            self.passing = self.admit is not None and not self.admit(self)
        except:
            # Nobody counts its memory.
            self.passing = True
            raise
        finally:
            self.busy = False
        return 0

    cdef int init(self) noexcept:
        return -1

    cdef void drop(self) noexcept:
        if self.stream != NULL:
            self.finish(self.stream)
            PyMem_Free(self.stream)
            self.stream = NULL

    def freeze(self):
        if self.busy:
            return False
        if self.stream != NULL:
            self.kept = self.history
            self.drop()
        return True

    cdef int grow(self, PyObject** out, Py_ssize_t size, Py_ssize_t most) except -1:
        """Make room for more behind ``size`` bytes."""
        cdef Py_ssize_t room = min(max(2 * size, SCRATCH), most)
        if out[0] == NULL:
            out[0] = new_bytes(NULL, room)
        else:
            _PyBytes_Resize(out, room)
        self.stream.next_out = bytes_data(out[0]) + size
        self.stream.avail_out = <unsigned int>(room - size)
        return 0


@cython.final
cdef class Deflater(_Stream):
    """See `tornado_ws.deflate.interfaces.Deflating`."""

    cdef bint forgotten
    cdef int level
    cdef int mem_level
    cdef int strategy

    def __cinit__(self, Library library not None, int level, int wbits, int mem_level, int strategy, Py_ssize_t memory,
                 bytes history not None, admit):
        self.library = library
        self.zlib = &library.functions
        self.finish = self.zlib.deflate_end
        self.set_dictionary = self.zlib.deflate_set_dictionary
        self.get_dictionary = self.zlib.deflate_get_dictionary
        self.most_kept = MAX_HISTORY
        self.level = level
        self.wbits = wbits
        self.mem_level = mem_level
        self.strategy = strategy
        self.memory = memory
        self.kept = history
        self.admit = admit

    def __dealloc__(self):
        self.drop()

    cdef int init(self) noexcept:
        return tws_deflate_init(self.zlib, self.stream, self.level, self.wbits, self.mem_level, self.strategy)

    def deflate(self, bytes data not None):
        return self.run(data, TWS_Z_SYNC_FLUSH)

    def deflate_alone(self, bytes data not None):
        cdef bytes payload = self.run(data, TWS_Z_FULL_FLUSH)
        self.known = 0
        if self.stream == NULL:
            self.kept = b""
        return payload

    cdef bytes run(self, bytes data, int flush):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef bytes payload
        if self.stream == NULL:
            self.known = PyBytes_GET_SIZE(self.kept)
            self.begin()
        self.used = True
        self.stream.next_in = <const uint8_t*>PyBytes_AS_STRING(data)
        if size >= LARGE:
            payload = self.run_large(size, flush)
        else:
            payload = self.run_small(size, flush)
        self.known += size
        if self.passing:
            try:
                self.freeze()
            except:
                self.forget()
                raise
        return payload

    cdef bytes run_small(self, Py_ssize_t size, int flush):
        cdef Py_ssize_t made
        self.stream.avail_in = <unsigned int>size
        self.stream.next_out = scratch
        self.stream.avail_out = SCRATCH
        self.zlib.deflate(self.stream, flush)
        made = SCRATCH - <Py_ssize_t>self.stream.avail_out - 4
        try:
            if made < 0:
                raise self.library.error("a flush wrote fewer bytes than its tail has")
            return PyBytes_FromStringAndSize(<char*>scratch, made)
        except:
            # It has taken the data, which nobody will get.
            self.forget()
            raise

    cdef bytes run_large(self, Py_ssize_t left, int flush):
        cdef PyObject* out = NULL
        cdef Py_ssize_t size = 0
        cdef bint was_busy = self.busy
        self.busy = True
        try:
            self.grow(&out, 0, max(SCRATCH, left >> 2))
            while True:
                if self.stream.avail_in == 0 and left:
                    self.stream.avail_in = <unsigned int>min(left, 1 << 30)
                    left -= self.stream.avail_in
                with nogil:
                    self.zlib.deflate(self.stream, flush if left == 0 else 0)
                size = self.stream.next_out - bytes_data(out)
                if self.stream.avail_out == 0:
                    self.grow(&out, size, 2 * size)
                elif left == 0:
                    break
            _PyBytes_Resize(&out, size - 4)
            return <bytes>out
        except BaseException:
            # It has taken the data, which nobody will get.
            self.forgotten = True
            raise
        finally:
            Py_CLEAR(out)
            self.busy = was_busy
            if self.forgotten:
                self.forget()

    def sent(self, bytes data not None):
        assert not self.busy
        if PyBytes_GET_SIZE(data) >= MAX_HISTORY:
            self.kept = data[-MAX_HISTORY:]
        else:
            self.kept = (self.history + data)[-MAX_HISTORY:]
        self.drop()

    def forget(self):
        if self.busy:
            # A thread is at work for a message that goes after what is to be forgotten.
            self.forgotten = True
            return
        self.forgotten = False
        self.drop()
        self.kept = b""


@cython.final
cdef class Inflater(_Stream):
    """See `tornado_ws.deflate.interfaces.Inflating`."""

    # What was given to `inflate` and did not fit into what it returned: `unread` from `unread_pos` on.
    cdef bytes unread
    cdef Py_ssize_t unread_pos
    # Bytes that zlib, which counts in 32 bits, has not been given yet.
    cdef Py_ssize_t left
    # Bytes of the message in the streams that ended in it, how many those are, and whether one ended just there.
    cdef long long taken
    cdef Py_ssize_t finals
    cdef bint is_final
    # The last bytes of the payload so far, as many as the tail has.
    cdef uint32_t last
    # Whether it has failed inside a message: what follows would be inflated with a window that is not the peer's.
    cdef bint broken
    cdef readonly object error

    def __cinit__(self, Library library not None, int wbits, bytes history not None, admit):
        self.library = library
        self.zlib = &library.functions
        self.finish = self.zlib.inflate_end
        self.set_dictionary = self.zlib.inflate_set_dictionary
        self.get_dictionary = self.zlib.inflate_get_dictionary
        self.most_kept = self.known = WINDOW
        self.error = library.error
        self.wbits = wbits
        self.kept = history
        self.admit = admit
        self.memory = INFLATER_SIZE
        self.last = NO_TAIL

    def __dealloc__(self):
        self.drop()

    cdef int init(self) noexcept:
        return tws_inflate_init(self.zlib, self.stream, self.wbits)

    def inflate(self, bytes data not None, Py_ssize_t room):
        if self.broken:
            raise self.error("stream that has failed before")
        try:
            return self.run(data, room)
        except:
            self.broken = True
            self.busy = False
            self.unread = None
            self.drop()
            raise

    cdef bytes run(self, bytes data, Py_ssize_t room):
        cdef bytes piece
        cdef Py_ssize_t pos = 0
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t i
        # Whatever the caller's limit was: zlib counts without a sign.
        room = max(room, 0)
        for i in range(max(0, size - 4), size):
            self.last = self.last << 8 | (<const uint8_t*>PyBytes_AS_STRING(data))[i]
        if self.unread is not None:
            # With nothing new only the place moves: a copy of all that is left at each call would be quadratic.
            if size:
                data = self.unread[self.unread_pos:] + data
            else:
                data, pos = self.unread, self.unread_pos
            self.unread = None
            size = PyBytes_GET_SIZE(data)
        if self.stream == NULL:
            self.begin()
        self.used = True
        # Until the message is at its end.
        self.busy = True
        self.left = size - pos
        self.stream.next_in = <const uint8_t*>PyBytes_AS_STRING(data) + pos
        self.stream.avail_in = 0
        self.stream.next_out = scratch
        self.stream.avail_out = <unsigned int>min(SCRATCH, room)
        if self.left < LARGE and not self.go_on():
            piece = PyBytes_FromStringAndSize(<char*>scratch, self.stream.next_out - scratch)
        else:
            piece = self.inflate_large(room)
        self.left += self.stream.avail_in
        if self.left:
            self.unread = data
            self.unread_pos = size - self.left
        return piece

    cdef bytes inflate_large(self, Py_ssize_t room):
        """Go on behind what is in `scratch`, in memory that grows."""
        cdef PyObject* out = NULL
        cdef Py_ssize_t size = self.stream.next_out - scratch
        try:
            self.grow(&out, size, room)
            memcpy(bytes_data(out), scratch, size)
            while self.go_on():
                size = self.stream.next_out - bytes_data(out)
                if size == room:
                    break
                self.grow(&out, size, room)
            _PyBytes_Resize(&out, self.stream.next_out - bytes_data(out))
            return <bytes>out
        finally:
            Py_CLEAR(out)

    cdef bint go_on(self) except -1:
        """Inflate to the end of the input or of the room; returns whether it was the room."""
        cdef int status
        while True:
            if self.stream.avail_in == 0 and self.left:
                self.stream.avail_in = <unsigned int>min(self.left, 1 << 30)
                self.left -= self.stream.avail_in
            if self.stream.avail_in and self.is_final:
                self.is_final = False
                if self.finals > MAX_FINALS:
                    check_finals(self.finals, self.taken)
            if self.stream.avail_in < LARGE and self.stream.avail_out <= SCRATCH:
                status = self.zlib.inflate(self.stream, TWS_Z_SYNC_FLUSH)
            else:
                with nogil:
                    status = self.zlib.inflate(self.stream, TWS_Z_SYNC_FLUSH)
            if status == TWS_Z_STREAM_END:
                self.end_stream()
            elif status == TWS_Z_DATA_ERROR and self.stream.avail_out == 0:
                # What fills the room came first. Whoever wants more gets the error.
                return True
            elif status != TWS_Z_OK and status != TWS_Z_BUF_ERROR:
                text = self.stream.msg.decode("ascii", "replace") if self.stream.msg != NULL else "out of memory"
                raise self.error(f"Error {status} while decompressing data: {text}")
            if self.stream.avail_out == 0 or (self.stream.avail_in == 0 and self.left == 0):
                return self.stream.avail_out == 0

    cdef void end_stream(self) noexcept:
        """A block with BFINAL ends the library's stream, but not the message (section 7.2.3.4)."""
        self.taken += self.stream.total_in
        self.is_final = True
        # As `deflate_streams.is_empty_stream`.
        if self.stream.total_out or (self.stream.total_in != 2 and self.stream.total_in != 5):
            self.finals += 1
        self.zlib.inflate_reset_keep(self.stream)

    def end(self):
        cdef bint whole
        if self.broken:
            return False
        if self.stream == NULL:
            self.begin()
        self.busy = False
        if self.is_final or self.unread is not None:
            whole = self.unread is None
        else:
            whole = self.take_tail()
        self.unread = None
        self.is_final = False
        self.last = NO_TAIL
        self.taken = self.finals = 0
        # Those of the next message, and not of the connection.
        self.stream.total_in = self.stream.total_out = 0
        if self.passing:
            self.freeze()
        return whole

    cdef bint take_tail(self) noexcept:
        """Put the tail behind the message if it is not there; returns whether it ends there, between two blocks."""
        cdef uint8_t[4] beyond
        cdef int status
        # The sender left it on, as some do. What a sender takes it from never ends so: its last bits are zeros.
        cdef bint stands = self.last == TAIL_NUMBER
        self.stream.next_in = FINAL_BLOCK if stands else TAIL
        self.stream.avail_in = 5 if stands else 4
        self.stream.next_out = beyond
        self.stream.avail_out = sizeof(beyond)
        status = self.zlib.inflate(self.stream, TWS_Z_SYNC_FLUSH)
        if self.stream.avail_in or self.stream.avail_out != sizeof(beyond):
            return False
        if status == TWS_Z_STREAM_END:
            self.zlib.inflate_reset_keep(self.stream)
            return True
        return not stands and status == TWS_Z_OK and self.stream.data_type & TWS_Z_BETWEEN_BLOCKS != 0
