# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=False
"""The native engine: what `tornado_ws.engine.pure` hands on, in C, by the same contract.

It implements the common, valid cases. Everything else is decided by `tornado_ws.engine.validation`, so that a violation
is defined once.
"""

import _ssl
import asyncio
import collections
import contextvars
import functools
import os
import ssl
import sys

from tornado.iostream import StreamClosedError

from tornado_ws.close_codes import MESSAGE_TOO_BIG
from tornado_ws.engine import contract as _contract
from tornado_ws.engine import encoding as _encoding
from tornado_ws.engine import handling as _handling
from tornado_ws.engine import validation as _validation
from tornado_ws.engine.openssl_errors import call as call_ssl
from tornado_ws.errors import ProtocolError

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
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
    object PyContext_CopyCurrent()
    bint PyCoro_CheckExact(object value)
    enum:
        PYGEN_RETURN
    int PyIter_Send(object iterator, object value, PyObject** result) except -1
    unsigned long PyThread_get_thread_ident()

# On Windows these are Winsock's: its errors are not in errno either.
cdef extern from "native/sockets.h":
    ctypedef Py_ssize_t ssize_t "Py_ssize_t"
    int errno "tws_socket_error()"
    int EAGAIN "TWS_WOULD_BLOCK"
    int EINTR "TWS_INTERRUPTED"
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    ssize_t c_recv "tws_recv"(int fd, void* buffer, size_t size, int flags) nogil
    ssize_t c_send "tws_send"(int fd, const void* buffer, size_t size, int flags) nogil
    ssize_t tws_send2(int fd, const void* head, size_t head_size, const void* rest, size_t rest_size) nogil
    int tws_epoll_wait(int epfd, int* ready, int most) nogil
    double tws_now() nogil

cdef extern from "native/bytes.h":
    void tws_mask(uint8_t* out, const uint8_t* data, size_t size, const uint8_t* key, size_t turn) nogil
    int tws_utf8(uint32_t* state, const uint8_t* data, size_t size) nogil
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


# Beside these there are constants of `contract`, which `setup.py` gives to the compiler.
DEF HEADER_MAX = 14
DEF CARRY_MAX = 144
# Of a large payload, at once and in one turn: what is unmasked while the cache still has it, and what others wait for.
DEF LARGE_READ = 131072
DEF LARGE_TURN = 1048576
# What one read can decrypt to: its own bytes, the record that it completes, and one that was decrypted before.
DEF PLAIN_SIZE = READ_SIZE + 2 * 16384
# Records are gathered in this, and sent when one more might not have room.
DEF SEALED_SIZE = CORK_SIZE + 2 * (16384 + 2053)
DEF ANSWERS_AT_ONCE = 16384
DEF MOST_ANSWERS = 65536
# What a peer announces is believed up to here before it comes.
DEF FIRST_ALLOCATION = 1048576
# Messages of these sizes have memory of the operating system's own, which is given back and fetched anew each time.
DEF SPARE_MIN = 131072
DEF SPARE_MAX = FIRST_ALLOCATION
DEF SPARES = 4

cdef enum:
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    CONTROL = 8
    FIN = 0x80
    RSV1 = 0x40
    MASKED = 0x80
    # Of a step of a connection's task, as in tornado_ws/engine/contract.py.
    NO_STEP = 0
    IN_STEP = 1
    WRITTEN_IN_STEP = 2

cdef object PENDING = _contract.PENDING
cdef object RAISED = _contract.RAISED
cdef object VIOLATION = _contract.VIOLATION
cdef object SUSPENDED = _contract.SUSPENDED
cdef int DEFERRED = _contract.DEFERRED
cdef int PART = _contract.PART
cdef int LAST = _contract.LAST
cdef Py_ssize_t INFLATED_AT_ONCE = _contract.INFLATED_AT_ONCE
cdef tuple _BUDGET_SPENT = (_contract.BUDGET_SPENT, None, 0)
cdef object check_header = _validation.check_header
cdef object check_extended_length = _validation.check_extended_length
cdef object check_size = _validation.check_size
cdef object not_utf8 = _validation.not_utf8
cdef object too_big_inflated = _validation.too_big_inflated
cdef tuple _FAILURES = (Exception, asyncio.CancelledError)
cdef str _on_message = "on_message"
cdef str _end_turn = "end_turn"
cdef double TURN_TIME = _contract.TURN_TIME
cdef int CLOCK_STRIDE = _contract.CLOCK_STRIDE
cdef Py_ssize_t CLOCK_SIZE = _contract.CLOCK_SIZE
# How often something took long: more to deliver than there is time for, or a large message.
cdef unsigned int _enough = 0

def _set_turn_time(double seconds):
    """For who counts instructions: under an emulator a turn would end after a fiftieth of its messages."""
    global TURN_TIME
    TURN_TIME = seconds


include "native/encoding.pxi"
include "native/message.pxi"
include "native/parts.pxi"
include "native/tasks.pxi"
include "native/reader.pxi"
include "native/read_ahead.pxi"
include "native/buffers.pxi"
include "native/turn.pxi"
include "native/tls.pxi"
include "native/channel.pxi"
include "native/connection_task.pxi"
include "native/sender.pxi"
