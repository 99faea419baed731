# What an application writes to; many messages, many sockets.

@cython.auto_pickle(False)
cdef class Sender:
    """What an application writes to; see `tornado_ws.engine.sender.Sender`."""

    cdef public Channel _out

    def is_closing(self):
        """Return True once either side has begun to close, or the stream is closed."""
        return (self._out is None or self._out.fd < 0) and self._is_closing()

    def write_message(self, message, binary=False, *, compress=True):
        """Send a message; see `.WebSocketHandler.write_message`.

        Raises `WebSocketClosedError` when a close frame was sent or the connection is lost, and ValueError for bytes
        that are to go as text and are not UTF-8.
        """
        if (
            self._out is not None
            and self._out.fd >= 0
            # The types of `tornado_ws.engine.encoding.SENDABLE`: Cython asks a type that it knows by a flag.
            and isinstance(message, (str, bytes, bytearray, memoryview))
        ):
            return self._out.send(message, binary, compress)
        return self._write_message(message, binary, compress)


def send_to_all(senders, bytes frames not None, Py_ssize_t size, int messages=1):
    """Send messages to those that need no more than their frames; see `tornado_ws.engine.sender.send_to_all`."""
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
            or out._write_queue is not None
            or out.tap is not None
        ):
            others.append(sender)
            continue
        if thread != out.thread:
            out._change_thread()
        out.put_unawaited(frames)
        out.messages += messages
        out.message_bytes += size
        out.wire_bytes += PyBytes_GET_SIZE(frames)
        count += 1
    return count, others


def serve_ready(epoll, dict channels, list late):
    """Call ``handle_events`` of the channels that are ready; see `tornado_ws.engine.serving.serve_ready`."""
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
    # With many ready sockets, more are ready by then: to look again costs less than a turn of the loop.
    while count >= BUSY and left > 0 and not epoll.closed:
        count = tws_epoll_wait(epoll.fileno(), ready, left)
        left -= count
        for i in range(count):
            # A callback of another connection may have closed it.
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
