# One session of OpenSSL's: bytes to records, and back.

#: Whether channels may take OpenSSL's session from Python's ssl module, in which file that has it, and in which version;
#: for tests.
direct_tls = True
ssl_file = os.fsencode(getattr(_ssl, "__file__", ""))
openssl_version = _ssl.OPENSSL_VERSION_NUMBER


@cython.final
cdef class TlsSession:
    """The session of an ssl.SSLSocket, of which we hold both ends: it reads and writes memory, not a socket.

    Records that it writes are gathered in the buffers of its loop, between `gather` and `release`.
    """

    cdef tws_tls* _tls
    # It has the session, which has to outlive `_tls`.
    cdef object _sslobj
    cdef _Buffers _buffers
    # Bytes that the session has answered by itself since the kernel last had everything.
    cdef Py_ssize_t _answers

    def __dealloc__(self):
        if self._tls != NULL:
            tws_tls_close(self._tls)

    cdef void gather(self):
        """Let records be gathered, until `release`."""
        self._tls.out = self._buffers.sealed
        self._tls.out_size = 0
        self._tls.out_room = SEALED_SIZE

    cdef void release(self):
        self._tls.out = NULL
        self._tls.in_ = NULL
        self._tls.in_size = 0

    cdef bint has_room(self):
        """Whether one more record can be gathered."""
        return SEALED_SIZE - self._tls.out_size >= TWS_RECORD_PAYLOAD + TWS_RECORD_OVERHEAD

    cdef Py_ssize_t gathered(self):
        """Return how many bytes were gathered."""
        return self._tls.out_size

    cdef Py_ssize_t take_gathered(self):
        """As `gathered`, and let what follows be gathered in their place."""
        cdef Py_ssize_t size = self._tls.out_size
        self._tls.out_size = 0
        return size

    cdef bint has_pending(self):
        """Whether a record is decrypted in part."""
        return tws_tls_pending(self._tls) != 0

    cdef Py_ssize_t decrypt(self, const uint8_t* cipher, Py_ssize_t size, uint8_t* plain, Py_ssize_t* state):
        """Return how many bytes are in ``plain``, which has PLAIN_SIZE, and in ``state`` why there are no more.

        What the session answers is gathered.
        """
        self._tls.in_ = cipher
        self._tls.in_size = size
        # A renegotiation has room in it. Hundreds of changes of keys in one chunk have not, and fail.
        self._tls.out_room = ANSWERS_AT_ONCE
        return tws_tls_decrypt(self._tls, plain, PLAIN_SIZE, state)

    cdef Py_ssize_t encrypt(self, const uint8_t* data, Py_ssize_t size):
        """Gather a record; return how many bytes of ``data`` it took, and zero or less when it failed."""
        return tws_tls_encrypt(self._tls, data, size)

    cdef bint answers_too_much(self, Py_ssize_t size, bint is_taken):
        """Count an answer of ``size`` bytes; return whether too many wait for the peer, which takes none."""
        self._answers = 0 if is_taken else self._answers + size
        return self._answers > MOST_ANSWERS

    cdef object error(self):
        cdef char[256] text
        tws_tls_error(text, sizeof(text))
        return ssl.SSLError(ssl.SSL_ERROR_SSL, text.decode("ascii", "replace"))


cdef TlsSession session_of(object connected, int fd, _Buffers buffers):
    """Return the session of an ssl.SSLSocket; None where it cannot be had."""
    cdef TlsSession session
    cdef bytes file = ssl_file
    if not direct_tls or type(connected._sslobj) is not _ssl._SSLSocket:
        return None
    session = TlsSession()
    session._buffers = buffers
    session._sslobj = connected._sslobj
    session._tls = tws_tls_open(session._sslobj, session._sslobj.context, file, openssl_version, fd)
    return session if session._tls != NULL else None
