# From the socket to on_message, and back. One class: a call from one to another costs what the hot path is to save.

cdef int check_text(const uint8_t* data, Py_ssize_t size) except -1:
    """Raise UnicodeDecodeError for bytes that are no UTF-8."""
    if not is_utf8(data, size):
        PyUnicode_DecodeUTF8(<const char*>data, size, NULL)
    return 0


cdef class Channel:
    """The hot half of a transport; see `tornado_ws.engine.channel.Channel`."""

    cdef public object _stream
    cdef public object receiver
    cdef public object _io_loop
    cdef public object _done
    cdef public object _write_queue
    cdef public object compressor
    cdef public bint compressing
    cdef public object tap
    cdef public object context
    cdef public object task
    # The task that a dispatch has entered, and the one that was the current one before.
    cdef object _entered
    cdef object _task_before
    cdef public int step
    cdef public bint more_waits
    cdef public int fd
    cdef public bint reading
    cdef public bint direct
    cdef public bint ahead
    cdef public ReadAhead read_ahead
    # Where a coroutine of `on_message` that has to wait goes on, None where there is no task for that.
    cdef object _connection_task
    cdef public bint masked
    cdef public unsigned long thread
    cdef public long long messages
    cdef public long long message_bytes
    cdef public long long wire_bytes
    cdef FrameReader _reader
    cdef _Buffers _buffers
    cdef bint _dispatching
    cdef bint _is_tls
    # Whether the descriptor takes and gives the bytes as they are.
    cdef bint _is_plain
    cdef unsigned int turn
    cdef public Py_ssize_t high_watermark
    cdef public TurnWrites _turn_writes
    # None where there is no TLS, and where the session has to be left to Python's ssl module.
    cdef TlsSession _session

    def __init__(self, stream, bint masked, done):
        self._stream = stream
        self._io_loop = stream.io_loop
        self._done = done
        self.masked = masked
        self.context = contextvars.copy_context()
        self.fd = stream.socket.fileno()
        self.thread = PyThread_get_thread_ident()
        self._is_tls = isinstance(stream.socket, ssl.SSLSocket)
        self._is_plain = _contract.is_plain(stream)
        self._buffers = buffers_of(self._io_loop)
        if self._is_tls:
            self._session = session_of(stream.socket, self.fd, self._buffers)

    @property
    def reader(self):
        return self._reader

    @reader.setter
    def reader(self, FrameReader reader):
        self._reader = reader

    @property
    def has_tls_session(self):
        """Whether records are opened and sealed here, not in Python's ssl module."""
        return self._session is not None

    @property
    def _corked_size(self):
        return self._buffers.corked_size if self._buffers.corking is self else 0

    # In

    def handle_events(self):
        """Read and write what can be; called when the socket may be ready."""
        self.serve()

    cdef int serve(self) except -1:
        try:
            if self._write_queue is not None:
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
        if not self._is_plain:
            if not self._is_tls:
                return self.receive_by_stream()
            return self.receive_tls() if self._session is None else self.receive_sealed()
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
        # Where the receiver decides about reading, it is asked after each portion.
        cdef Py_ssize_t turn = min(size, LARGE_TURN if self.direct else LARGE_READ)
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
            self.dispatch(self._deliver, (VIOLATION, not_utf8(), 0))
        elif not reader._left or not self.direct:
            self.dispatch(self._deliver, None)
        return 0

    cdef ssize_t recv_into(self, uint8_t* room, Py_ssize_t size) except -2:
        """Return how many bytes came, and zero or less when none did; an end is told to the receiver."""
        cdef ssize_t count = c_recv(self.fd, room, size, MSG_DONTWAIT)
        if count == 0:
            self._end_reading(None)
        elif count < 0 and errno != EAGAIN and errno != EINTR:
            self._end_reading(OSError(errno, os.strerror(errno)))
        return count

    cdef int receive_by_stream(self) except -1:
        """As `receive`, of a stream that reads in a way of its own."""
        cdef bytearray room = bytearray(READ_SIZE)
        try:
            count = call_ssl(True, self._stream.read_from_fd, memoryview(room))
        except OSError as error:
            count = error
        if isinstance(count, OSError):
            self._end_reading(count)
        elif count:
            self.dispatch(self._take, bytes(room[:count]))
        elif count is not None:
            self._end_reading(None)
        return 0

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
                count = call_ssl(True, tls.read, len(view) - size, view[size:] if size else view)
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
        cdef TlsSession session = self._session
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
        if self.fd < 0 or not self.reading or (count < 0 and not session.has_pending()):
            return 0
        session.gather()
        size = session.decrypt(cipher, max(count, 0), plain, &state)
        cdef Py_ssize_t answer = session.gathered()
        try:
            # A renegotiation or a change of keys has an answer.
            self.send_gathered()
        finally:
            session.release()
        if self._write_queue is not None:
            # What is written next would come before it.
            self.send_turn_writes()
        if size:
            if own:
                self.dispatch(self._take, own_plain[:size])
            else:
                self.take(plain, size)
        if session.answers_too_much(answer, self._write_queue is None) and self.fd >= 0:
            self._end_reading(ssl.SSLError(ssl.SSL_ERROR_SSL, "asks for change after change of keys and takes no answer"))
        elif self.fd >= 0 and state != TWS_TLS_WANTS_MORE:
            self._end_reading(None if state == TWS_TLS_ENDED else session.error())
        return 0

    def _take(self, bytes chunk):
        if self.tap is not None:
            self.tap.received(chunk)
        self._reader.feed(chunk)
        self.deliver(None)

    cdef int take(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Parse what was received and hand it out."""
        cdef object context
        cdef _Buffers buffers = self._buffers
        cdef FrameReader reader = self._reader
        if self.tap is not None:
            self.tap.received(PyBytes_FromStringAndSize(<const char*>data, size))
        if self._dispatching:
            reader.feed(PyBytes_FromStringAndSize(<const char*>data, size))
            self.deliver(None)
            return 0
        context = self.begin()
        try:
            buffers.parsing = True
            try:
                reader.lend(data, size)
                self.deliver(None)
            finally:
                buffers.parsing = False
                reader.give_back()
        finally:
            self.finish(context)
        return 0

    def _deliver(self, outcome):
        self.deliver(outcome)

    cdef int deliver(self, object outcome) except -1:
        if outcome is None and self.direct:
            outcome = self._reader.deliver_to(self.receiver.handler, MESSAGES_PER_TURN, True, self.task is not None)
            if outcome is None:
                return 0
            if <int>outcome[0] == SUSPENDED and self.read_ahead is not None:
                self._connection_task.hold(outcome[1])
                outcome = None
        if outcome is None and self.ahead and not self._reader._stopped and self.receiver.busy_with is not None:
            outcome = self.fill_read_ahead()
            if outcome is None and not self.read_ahead.has_enough():
                return 0
        if self.receiver is not None:
            self.receiver.advance(outcome)
        return 0

    cdef object fill_read_ahead(self):
        """Let messages wait while the application is busy; returns what else has come, None if nothing has."""
        cdef object outcome = None
        try:
            outcome = self.read_ahead.fill_from(self._reader, MESSAGES_PER_TURN)
        except ProtocolError as error:
            outcome = VIOLATION, error, 0
        finally:
            self.more_waits = len(self.read_ahead) > 0
        return outcome

    cdef object begin(self):
        """Enter the connection's context and task, and hold back what is written; returns what `finish` is given."""
        cdef object context = self.context
        cdef object task = None if self.step else self.task
        cdef object before = None
        if task is not None:
            before = enter_task(task, self._buffers.loop)
        try:
            PyContext_Enter(context)
        except:
            if task is not None:
                leave_task(task, self._buffers.loop, before)
            raise
        self._entered = task
        self._task_before = before
        self._dispatching = True
        if self._buffers.corking is None:
            self._buffers.corking = self
            self._buffers.corked_size = 0
            self._buffers.first_sent = False
        return context

    cdef int finish(self, object context) except -1:
        self._dispatching = False
        task = self._entered
        before = self._task_before
        self._entered = self._task_before = None
        try:
            if task is not None:
                leave_task(task, self._buffers.loop, before)
        finally:
            PyContext_Exit(context)
        if self._buffers.corking is self:
            try:
                self.uncork()
            finally:
                self._buffers.corking = None
        return 0

    def dispatch(self, callback, *args):
        """Call in the connection's task and context; what is written meanwhile goes to the socket together, at the end.

        An exception aborts the connection and goes no further; see `tornado_ws.engine.channel.Channel`.
        """
        if self._dispatching:
            callback(*args)
            return
        try:
            context = self.begin()
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
        if self._write_queue is not None:
            refused = self.refuse()
            if refused is not None:
                return refused
        if isinstance(message, str):
            payload = (<str>message).encode("utf-8")
        elif binary and type(message) is bytes:
            payload = message
        else:
            payload = _encoding.encode_message(message, binary)
        size = PyBytes_GET_SIZE(payload)
        if size < <Py_ssize_t>self.compressor.threshold or self.compressing:
            future = self.put(first_byte, <const uint8_t*>PyBytes_AS_STRING(payload), size, payload)
        else:
            self.compressing = True
            try:
                payload = self.compressor.compress(payload)
                first_byte |= RSV1
                future = self.put(
                    first_byte, <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), payload
                )
            finally:
                self.compressing = False
        self.messages += 1
        self.message_bytes += size
        return future

    cdef object put_message(self, const uint8_t* data, Py_ssize_t size, bint binary, bytes owner):
        if self._write_queue is not None:
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
        if self._write_queue is None:
            if size < LARGE:
                if corking:
                    if buffers.corked_size + size + HEADER_MAX > CORK_SIZE:
                        self.uncork()
                    if self._write_queue is None and self.fd >= 0:
                        frame = put_frame(buffers.corked + buffers.corked_size, first_byte, payload, size, self.masked)
                        buffers.corked_size += frame
                        self.wire_bytes += frame
                        return self.hold(frame) if self.gathers() else self.send_corked()
                elif first_byte & CONTROL or not self.waits_for_turn():
                    frame = put_frame(small, first_byte, payload, size, self.masked)
                    self.wire_bytes += frame
                    return self.offer(small, frame, NULL, 0, None)
                else:
                    whole = frame_of(first_byte, payload, size, self.masked)
                    self.wire_bytes += PyBytes_GET_SIZE(whole)
                    return self.gather(whole, True)
            elif not self.masked and (self._is_plain or self._session is not None):
                if corking:
                    if buffers.corked_size + HEADER_MAX > CORK_SIZE:
                        self.uncork()
                    if self._write_queue is None and self.fd >= 0:
                        frame = put_header(buffers.corked + buffers.corked_size, first_byte, size, False)
                        self.wire_bytes += frame + size
                        frame += buffers.corked_size
                        buffers.corked_size = 0
                        return self.offer(buffers.corked, frame, payload, size, owner)
                else:
                    frame = put_header(small, first_byte, size, False)
                    self.wire_bytes += frame + size
                    return self.offer(small, frame, payload, size, owner)
        if size >= LARGE and owner is not None and not self.masked and self._is_plain:
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
        if buffers.corking is self and self._write_queue is None:
            if buffers.corked_size + size <= CORK_SIZE:
                memcpy(buffers.corked + buffers.corked_size, PyBytes_AS_STRING(data), size)
                buffers.corked_size += size
                return self.hold(size) if self.gathers() else self.send_corked()
            self.uncork()
        return self._offer(data)

    def write_unawaited(self, bytes frame not None):
        """Send a frame that others get too."""
        self.put_unawaited(frame)

    cdef int put_unawaited(self, bytes frame) except -1:
        cdef _Buffers buffers = self._buffers
        if (
            self._write_queue is not None
            or self.fd < 0
            or PyBytes_GET_SIZE(frame) >= LARGE
            or buffers.corking is self
            or not self.waits_for_turn()
        ):
            self.write_whole(frame)
        else:
            self.gather(frame, False)
        return 0

    cdef bint waits_for_turn(self) except -1:
        """Whether what is written now waits for the end of the turn."""
        cdef TurnWrites writes = self._turn_writes
        return self._buffers.has_written(self) and not (writes is not None and writes.is_streaming())

    cdef object gather(self, bytes frame, bint awaited):
        """Let a frame wait for the end of the turn."""
        cdef TurnWrites writes = self._turn_writes
        if writes is None:
            writes = TurnWrites(self)
            self._buffers.waiting.append(self)
            self._turn_writes = writes
        elif writes.size + PyBytes_GET_SIZE(frame) > CORK_SIZE:
            self.send_turn_writes()
            if self._write_queue is not None or self.fd < 0:
                return self._offer(frame)
        writes.pieces.append(frame)
        writes.size += PyBytes_GET_SIZE(frame)
        return writes.add_future() if awaited and writes.size > self.high_watermark else self._done

    def send_turn_writes(self):
        """Send what waits for the end of the turn."""
        if self._turn_writes is not None:
            self._turn_writes.send()

    def _offer(self, bytes data):
        return self.offer(NULL, 0, <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), data)

    cdef object offer(
        self, const uint8_t* head, Py_ssize_t head_size, const uint8_t* rest, Py_ssize_t rest_size, bytes owner
    ):
        """Send two pieces of memory, either may be empty; what the kernel does not take is kept."""
        cdef ssize_t count = 0
        if self._turn_writes is not None and self._turn_writes.size:
            self.send_turn_writes()
            if self.fd < 0:
                return self._keep(b"")
        if self._write_queue is not None:
            self._check_room(head_size + rest_size)
        if self._session is not None:
            self._session.gather()
            try:
                future = self.seal(head, head_size)
                if rest_size:
                    future = self.seal(rest, rest_size)
                if self.fd >= 0:
                    future = self.send_gathered()
            finally:
                self._session.release()
            return future
        if self._write_queue is None:
            if not self._is_plain:
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

    cdef object seal(self, const uint8_t* data, Py_ssize_t size):
        """Encrypt; what does not fit is sent."""
        cdef TlsSession session = self._session
        cdef Py_ssize_t count
        while size and self.fd >= 0:
            if not session.has_room():
                self.send_gathered()
                continue
            count = session.encrypt(data, size)
            if count <= 0:
                self._stream.close(exc_info=session.error())
                break
            data += count
            size -= count
        return self._done if self.fd >= 0 else self._keep(b"")

    cdef object send_gathered(self):
        """Send what was gathered; what the kernel does not take is kept as it is, encrypted."""
        cdef Py_ssize_t size = self._session.take_gathered()
        cdef Py_ssize_t count = 0
        if size and self._write_queue is None:
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
        if self._is_plain or self._session is not None:
            view = data
            return self.sent(c_send(self.fd, &view[0], view.shape[0], MSG_DONTWAIT | MSG_NOSIGNAL))
        cdef Py_ssize_t total = 0
        whole = memoryview(data)
        write = self._stream.socket._sslobj.write if self._is_tls else self._stream.write_to_fd
        try:
            # TLS takes one record at a time.
            while total < min(len(whole), SEND_SIZE):
                total += <Py_ssize_t>call_ssl(False, write, whole[total:])
        except (ssl.SSLWantWriteError, BlockingIOError):
            pass
        except OSError as error:
            self._stream.close(exc_info=error.with_traceback(None))
        finally:
            whole.release()
        return total

    cdef bint gathers(self) noexcept:
        """Whether what was written waits for what follows; see `tornado_ws.engine.channel.Channel.write`."""
        if self.more_waits or (self._reader is not None and self._reader._pos < self._reader._end):
            self._buffers.first_sent = False
            return True
        if self._buffers.first_sent:
            return True
        self._buffers.first_sent = True
        return False

    cdef object hold(self, Py_ssize_t frame):
        """Let what is corked wait for what follows; the last one has ``frame`` bytes."""
        if self._buffers.corked_size == frame:
            self._buffers.end_inside(self)
        return self._done

    cdef object send_corked(self):
        """Send what is corked; returns the Future of it."""
        cdef Py_ssize_t size = self._buffers.corked_size
        self._buffers.corked_size = 0
        return self.offer(self._buffers.corked, size, NULL, 0, None)

    cdef int uncork(self) except -1:
        """Send what is corked."""
        if self._buffers.corked_size and self.fd >= 0:
            self.send_corked()
        self._buffers.corked_size = 0
        return 0

    def _take_corked(self):
        """Return what is corked, which is then the caller's to send."""
        cdef Py_ssize_t size = self._buffers.corked_size
        if self._buffers.corking is not self:
            return b""
        self._buffers.corked_size = 0
        return PyBytes_FromStringAndSize(<const char*>self._buffers.corked, size)
