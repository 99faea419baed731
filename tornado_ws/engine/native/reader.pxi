cdef bint is_utf8(const uint8_t* data, Py_ssize_t size) noexcept:
    """Whether these bytes are UTF-8, with nothing cut off at their end."""
    cdef uint32_t utf8 = 0
    return tws_utf8(&utf8, data, size) and utf8 & 3 == 0


cdef bytes checked_utf8(bytes payload):
    """Return the text of a message as it came; see `tornado_ws.engine.validation.checked_text`."""
    if not is_utf8(<const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload)):
        raise not_utf8()
    return payload


# Frames to messages. One class, and a long one: its fields are the state of the parser, which a call would have to pass.

@cython.final
cdef class FrameReader:
    """Parses what one peer sends; see `tornado_ws.engine.contract`."""

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
    # Bytes that any message may have, and those of one that is given whole.
    cdef Py_ssize_t _most
    cdef Py_ssize_t _limit
    cdef object _inflater
    # The reserved bits that the first frame of a message may have.
    cdef int _reserved
    cdef bint _decodes
    # Of messages that are given in parts: the size of those, the beginning of a character whose rest has not come, and
    # whether there is more to come out of bytes that were inflated.
    cdef Py_ssize_t _part_size
    cdef bytes _held
    cdef bint _has_more
    # The event that `parse` found: its opcode, 0 for none, and its size.
    cdef int _event
    cdef Py_ssize_t _event_size
    cdef bint _stopped
    cdef bint _finished
    cdef public long long messages
    cdef public long long message_bytes
    cdef public long long wire_bytes

    def __init__(self, bint expect_masked, max_message_size, inflater=None, bint decodes=True, Py_ssize_t part_size=0):
        self._expect_masked = expect_masked
        self._most = max(0, min(max_message_size, sys.maxsize))
        self._limit = self._most
        if part_size:
            # Of text that comes as bytes only the opcode of a part says what it is.
            self._limit = min(part_size, self._most) if decodes else -1
        self._part_size = part_size
        self._held = b""
        self._inflater = inflater
        self._reserved = RSV1 if inflater is not None else 0
        self._decodes = decodes

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

    def deliver(self, handler, int limit, bint timed=False, bint steps=False):
        """Give messages to ``handler.on_message``; see `tornado_ws.engine.reader.FrameReader.deliver`."""
        return self.deliver_to(handler, limit, timed, steps)

    cdef object deliver_to(self, object handler, int limit, bint timed, bint steps):
        global _enough
        cdef double until = 0
        cdef object payload
        cdef object result
        # A return within an except clause would crash where there was no memory for the traceback: Cython takes it for
        # granted there.
        cdef object failed = None
        while not self._stopped and not self._finished:
            try:
                payload = self.step()
            except ProtocolError as error:
                failed = error
                self._event = 0
            if self._event == 0:
                if failed is not None and not isinstance(failed, ProtocolError):
                    # A MemoryError, which Cython has put in its place: the same lack.
                    raise failed
                return (VIOLATION, failed, 0) if failed is not None else None
            if self._event >= CLOSE:
                return self._event, payload, self._event_size
            self.messages += 1
            self.message_bytes += self._event_size
            try:
                result = PyObject_CallMethodOneArg(handler, _on_message, payload)
                if steps and PyCoro_CheckExact(result):
                    result = step_coroutine(result)
                    if result is not None:
                        failed = SUSPENDED, result, 0
                elif result is not None and is_done(result):
                    result = None
            except _FAILURES as error:
                failed = result = RAISED, [error], 0
            if result is not None:
                return (PENDING, result, 0) if failed is None else failed
            payload = None
            limit -= 1
            if limit <= 0 and not self._stopped:
                _enough += 1
                return _BUDGET_SPENT
            if self._event_size >= CLOCK_SIZE:
                _enough += 1
            elif limit & CLOCK_STRIDE:
                continue
            if timed and not self._stopped:
                if until == 0:
                    until = tws_now() + TURN_TIME
                elif tws_now() > until:
                    _enough += 1
                    return _BUDGET_SPENT
        return None

    def close(self):
        """Hand out no more, and let go of what there is: a message that has begun may have megabytes."""
        self._stopped = True
        self.end()

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
            # After any error, a MemoryError too, it is unknown what the next byte belongs to.
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
        self._held = b""
        self._has_more = False
        Py_CLEAR(self._message)

    cdef object parse(self):
        cdef const uint8_t* head
        cdef Py_ssize_t have, need, size
        cdef int first, second
        cdef object payload
        while True:
            if self._in_payload:
                if self._part_size:
                    payload = self.take_part()
                    if self._event:
                        return payload
                    if self._in_payload and self._pos == self._end:
                        return None
                    continue
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
                (first & ~self._reserved != (FIN | TEXT) and first & ~self._reserved != (FIN | BINARY))
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
                check_size(int(size) + int(self._size), self._most)
                # It is given in parts, or it would be too large.
                if not self.in_message:
                    self.begin_message(first)

            if not self.in_message and first & (FIN | RSV1) == FIN and self._end - self._pos >= size:
                payload = self.whole_message(first & 0xF, size)
                self._event = first & 0xF
                self._event_size = size
                return payload

            if not self.in_message:
                self.begin_message(first)
            self._first = first
            self._left = size
            self._turn = 0
            self._in_payload = True

    cdef void begin_message(self, int first) noexcept:
        self.in_message = True
        self._opcode = first & 0xF
        self._size = 0
        self._room = 0
        self._utf8 = 0

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
        if opcode == TEXT and self._decodes:
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
        if opcode == TEXT:
            checked_utf8(payload)
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

    cdef object take_part(self):
        """Take a part of what has come of the frame's payload, and return it; `_event` is 0 where that gives none yet.

        As `tornado_ws.engine.parts.MessageInParts`.
        """
        global _enough
        cdef Py_ssize_t held = PyBytes_GET_SIZE(self._held)
        cdef Py_ssize_t room = self._most - self._size
        cdef Py_ssize_t begin = 0 if self._compressed else held
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t most
        cdef uint8_t* out
        cdef bytes part
        if not self._has_more:
            size = min(min(self._end - self._pos, self._left), self._part_size - held)
            if size == 0 and self._left:
                return None
        part = PyBytes_FromStringAndSize(NULL, begin + size)
        out = <uint8_t*>PyBytes_AS_STRING(part)
        memcpy(out, PyBytes_AS_STRING(self._held), begin)
        if self._masked:
            tws_mask(out + begin, self._data + self._pos, size, self._key, self._turn)
            self._turn = (self._turn + size) & 3
        elif size:
            memcpy(out + begin, self._data + self._pos, size)
        self._pos += size
        self._left -= size
        if self._compressed:
            most = min(min(room, self._part_size - held - 1), INFLATED_AT_ONCE - 1)
            if size or self._has_more:
                part = self._inflater.inflate(part, most)
                self._has_more = PyBytes_GET_SIZE(part) > most
            size = PyBytes_GET_SIZE(part)
            self.check_utf8(<const uint8_t*>PyBytes_AS_STRING(part), min(size, room))
            if size > room:
                raise too_big_inflated()
            part = self._held + part
        else:
            self.check_utf8(out + begin, size)
        self._size += size
        if size >= CLOCK_SIZE:
            _enough += 1
        out = <uint8_t*>PyBytes_AS_STRING(part)
        size = PyBytes_GET_SIZE(part)
        if self._opcode == TEXT:
            held = unfinished(out, size)
            size -= held
            self._held = part[size:]
        if self._left == 0 and not self._has_more:
            self._in_payload = False
            if self._first & FIN:
                if self._compressed:
                    self._inflater.end_message()
                if held:
                    raise not_utf8()
                self.in_message = False
                self._size = 0
        if size == 0 and self.in_message:
            return None
        self._event = self._opcode | PART | (0 if self.in_message else LAST)
        self._event_size = size
        if self._opcode == TEXT and self._decodes:
            return PyUnicode_DecodeUTF8(<const char*>out, size, NULL)
        return part if PyBytes_GET_SIZE(part) == size else part[:size]

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
            self._event = self._opcode | DEFERRED
            return rest, message
        self._event_size = size
        self._event = BINARY
        if self._opcode != TEXT:
            return message
        self._event = TEXT
        if not self._decodes:
            return checked_utf8(message)
        try:
            return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(message), size, NULL)
        except UnicodeDecodeError:
            raise not_utf8() from None

    # A large payload can be received into where it is to lie.

    cdef uint8_t* direct_room(self, Py_ssize_t* size):
        """Where the next bytes belong, NULL when they have to be parsed."""
        if not self._in_payload or self._compressed or self._left < LARGE or self._pos < self._end or self._finished:
            return NULL
        if self._part_size:
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
