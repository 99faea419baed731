# The task of one connection, as in tornado_ws/engine/handling.py and tornado_ws/engine/connection_task.py.

cdef object _finish = _handling.finish
cdef object _pass_on = _handling.pass_on


@cython.auto_pickle(False)
@cython.final
cdef class Handling:
    """A coroutine that waits; see `tornado_ws.engine.handling.Handling`."""

    cdef object _coroutine
    cdef object _context
    cdef object _callback
    cdef object _error
    cdef readonly object yielded
    cdef bint _blocks
    cdef bint _is_new
    cdef bint _has_ended
    cdef public object other_task

    def __init__(self, coroutine, context, yielded):
        self.begin(coroutine, context, yielded)

    cdef int begin(self, coroutine, context, yielded) except -1:
        self._coroutine = coroutine
        self._context = context
        self.yielded = yielded
        self._is_new = True
        self._blocks = False
        # Most wait for a turn of the loop, or for a Future of asyncio.
        if yielded is not None and getattr(yielded, "_asyncio_future_blocking", False):
            self._blocks = True
            yielded._asyncio_future_blocking = False
        return 0

    def add_done_callback(self, callback):
        self._callback = callback
        if self._has_ended:
            asyncio.get_running_loop().call_soon(callback, self)

    def result(self):
        error = self._error
        self._error = None
        if error is not None:
            raise error

    cpdef bint step(self, error) except -1:
        """Take a step, and return whether the coroutine goes on to wait."""
        cdef PyObject* result = NULL
        cdef int status
        cdef bint waits = True
        cdef bint is_new = self._is_new
        self._is_new = False
        try:
            if error is not None:
                self.yielded = self._context.run(self._coroutine.throw, error)
            elif not is_new:
                PyContext_Enter(self._context)
                try:
                    status = PyIter_Send(self._coroutine, None, &result)
                finally:
                    PyContext_Exit(self._context)
                self.yielded = <object>result
                Py_CLEAR(result)
                waits = status != PYGEN_RETURN
            elif self._blocks:
                self.yielded._asyncio_future_blocking = True
        except StopIteration:
            waits = False
        except BaseException as raised:
            self._error = raised
            waits = False
        return waits

    cpdef int end(self) except -1:
        """Tell who waits for it. Raises what is to end the loop."""
        self._has_ended = True
        interrupt = None if isinstance(self._error, _FAILURES) else self._error
        if self._callback is not None:
            self._callback(self)
        if interrupt is not None:
            raise interrupt
        return 0


@cython.auto_pickle(False)
@cython.final
cdef class ConnectionTask:
    """What the task of a connection awaits; see `tornado_ws.engine.connection_task.ConnectionTask`."""

    cdef public bint _asyncio_future_blocking
    cdef object _owner
    cdef Channel _channel
    cdef object _wakeup
    cdef object _context
    cdef Handling _handling
    cdef bint _is_awaited
    cdef bint _is_aborted
    # Whether the coroutine that is under way was told that the task is cancelled.
    cdef bint _is_cancelled
    cdef bint _is_over
    cdef object _thrown

    def __init__(self, owner, Channel channel not None):
        self._owner = owner
        self._channel = channel
        channel.task = _tasks["current_task"]()
        channel._connection_task = self

    # What callbacks return

    @property
    def is_free(self):
        return self._is_awaited and self._handling is None

    def run(self, coroutine):
        suspended = step_coroutine(coroutine)
        return None if suspended is None else self.go_on(*suspended)

    def go_on(self, coroutine, context, yielded):
        cdef Handling handling = Handling(coroutine, context, yielded)
        if not self._is_awaited or self._handling is not None:
            handling.other_task = asyncio.ensure_future(_finish(handling))
            return handling
        self._handling = handling
        task = self._channel.task
        if self._wakeup is not None and task is not None:
            if _tasks["current_task"]() is not task:
                self.wake()
            elif not self.wake_now(task, handling):
                self.leave()
                self._handling = None
                handling.other_task = asyncio.ensure_future(_finish(handling))
        return handling

    def hold(self, tuple suspended):
        """Go on with a message's coroutine that has to wait; those that come meanwhile wait behind it."""
        cdef Channel channel = self._channel
        cdef Handling handling
        receiver = channel.receiver
        # First: the receiver waits for what it is busy with, and without memory nobody would tell it of the end.
        on_handled = receiver.on_handled
        handling = self.go_on(suspended[0], suspended[1], suspended[2])
        handling.add_done_callback(on_handled)
        receiver.busy_with = handling
        # Until then the callback may have done anything.
        channel.ahead = channel.direct
        channel.direct = False

    cdef bint deliver_next(self, Handling handling) except -1:
        """Give the application the message that waits behind the one of ``handling``, which is done.

        Returns False where the receiver has to see to it.
        """
        cdef Channel channel = self._channel
        cdef ReadAhead read_ahead = channel.read_ahead
        if (
            not channel.ahead
            or (not channel.reading and len(read_ahead) <= 1)
            or channel._dispatching
            or channel._reader._stopped
            or handling._error is not None
        ):
            return False
        if not len(read_ahead):
            channel.receiver.busy_with = None
            channel.ahead = False
            channel.direct = True
            return True
        try:
            context = channel.begin()
            try:
                self.deliver_first(handling)
            finally:
                channel.finish(context)
        except BaseException as error:
            channel._handling_failed(error)
            if not isinstance(error, Exception):
                raise
        return True

    cdef int deliver_first(self, Handling handling) except -1:
        """Deliver the message that waits first; if its coroutine has to wait, ``handling`` goes on with that."""
        cdef Channel channel = self._channel
        cdef ReadAhead read_ahead = channel.read_ahead
        receiver = channel.receiver
        # In a loop that the callback runs, the next message is to be delivered.
        receiver.busy_with = None
        channel.more_waits = len(read_ahead) > 1
        cdef tuple outcome = read_ahead.deliver_to(channel._reader, receiver.handler, True)
        if (
            outcome is None
            or <int>outcome[0] != SUSPENDED
            # A loop that the callback has run may have read anything.
            or not channel.ahead
            or receiver.busy_with is not None
        ):
            receiver.advance(outcome)
        else:
            handling.begin(outcome[1][0], outcome[1][1], outcome[1][2])
            receiver.busy_with = self._handling = handling
        return 0

    cdef bint wake_now(self, task, Handling handling) except -1:
        """Let the task take a step, with ``handling``; returns False where it has ended before that."""
        cdef object failed = None
        wakeup = self._wakeup
        self._wakeup = None
        try:
            call_outside(task, self._channel._buffers.loop, wakeup, self)
        except Exception as error:
            failed = error
        if failed is None:
            return not handling._is_new or not task.done()
        if task.done():
            return self._handling is not handling
        # asyncio had no memory to step the task, or for what wakes it then. Nobody else would go on with it.
        if self._wakeup is None:
            self._wakeup = wakeup
        self._thrown = failed
        self.wake()
        return True

    def run_to_end(self, coroutine):
        future = self.get_loop().create_future()
        handling = None
        try:
            handling = self.run(coroutine)
            if handling is not None:
                handling.add_done_callback(functools.partial(_pass_on, future))
        except Exception as error:
            future.set_exception(error)
            handling = future
        return None if handling is None else future

    def is_task(self, task):
        return task is not None and task is self._channel.task

    def end(self):
        self._is_over = True
        self.wake()

    cdef int wake(self) except -1:
        """Let the task take a step in the next turn of the loop."""
        if self._wakeup is not None:
            self.get_loop().call_soon(self._wakeup, self, context=self._context)
            self._wakeup = None
        return 0

    # What the task awaits

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.step(None)

    def send(self, value):
        return self.step(None)

    def throw(self, kind, error=None, traceback=None):
        if error is None:
            error = kind
        if self._handling is None:
            if not isinstance(error, MemoryError):
                if self._is_aborted or not isinstance(error, asyncio.CancelledError):
                    self.leave()
                    raise error
                self._is_aborted = True
                self._owner._cancelled()
            # What asyncio had no memory for is of no coroutine: the task waits again.
            error = None
        elif isinstance(error, asyncio.CancelledError):
            self._is_cancelled = True
        return self.step(error)

    cdef object step(self, error):
        cdef Handling handling
        self._channel.step = IN_STEP
        try:
            if not self._is_awaited:
                self._is_awaited = True
                self._owner._begin()
            while self._handling is not None:
                handling = self._handling
                if handling.step(error):
                    return handling.yielded
                self._handling = error = None
                if self._is_cancelled:
                    self._is_cancelled = False
                    if handling._error is None:
                        self._owner._cancel_swallowed()
                if not self.deliver_next(handling):
                    handling.end()
            if not self._is_over:
                self._asyncio_future_blocking = True
                return self
        except:
            self.leave()
            raise
        finally:
            self._channel.step = NO_STEP
        self.leave()
        raise StopIteration

    cdef void leave(self) noexcept:
        self._is_awaited = False
        self._channel.task = self._channel._connection_task = None

    # What a task asks of a Future

    def get_loop(self):
        return self._channel._buffers.loop

    def add_done_callback(self, callback, *, context):
        self._wakeup = callback
        self._context = context

    def result(self):
        if self._thrown is not None:
            thrown = self._thrown
            self._thrown = None
            raise thrown

    def cancel(self, msg=None):
        if self._wakeup is None:
            return False
        if self.is_task(_tasks["current_task"](self._channel._buffers.loop)):
            # A callback cancels its own task, which is as good as in a step: it is for the task to keep that in mind.
            self.wake()
            return False
        cancelled = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self.wake()
        self._thrown = cancelled
        return True
