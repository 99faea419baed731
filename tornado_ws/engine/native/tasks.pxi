# Steps of coroutines, and the current task, as in tornado_ws/engine/tasks.py.

# Looked up each time: nest_asyncio and others replace what is in it.
cdef dict _tasks = vars(asyncio.tasks)


cdef object step_coroutine(coroutine):
    """Let ``coroutine`` take its first step; returns None if it is done, else (coroutine, its context, what it yields)."""
    cdef PyObject* result = NULL
    cdef int status
    cdef object context = PyContext_CopyCurrent()
    PyContext_Enter(context)
    try:
        status = PyIter_Send(coroutine, None, &result)
    finally:
        PyContext_Exit(context)
    yielded = <object>result
    Py_CLEAR(result)
    return None if status == PYGEN_RETURN else (coroutine, context, yielded)


cdef object _Future = asyncio.Future


cdef bint is_done(result) except -1:
    """Whether ``result`` is a Future that has ended well; see `tornado_ws.engine.tasks.is_done`."""
    return (
        type(result) is _Future and result.done() and not result.cancelled() and result.exception() is None
    )


cdef object enter_task(task, loop):
    """Make ``task`` the current one; returns which one was that before, or None.

    Where there is no memory for that, nothing is changed.
    """
    cdef object before = None
    cdef bint entered = True
    try:
        _tasks["_enter_task"](loop, task)
    except RuntimeError:
        entered = False
    except MemoryError:
        # A callback without its task is better than none: it may be on_close.
        before = task
    if entered:
        return before
    before = _tasks["current_task"](loop)
    if before is not task:
        _tasks["_leave_task"](loop, before)
        try:
            _tasks["_enter_task"](loop, task)
        except:
            _tasks["_enter_task"](loop, before)
            raise
    return before


cdef int call_outside(task, loop, callback, argument) except -1:
    """Call ``callback`` while no task is the current one, as ``task`` is now.

    Where there is no memory for that, ``task`` is not the current one afterwards.
    """
    _tasks["_leave_task"](loop, task)
    try:
        callback(argument)
    finally:
        try:
            _tasks["_enter_task"](loop, task)
        except MemoryError:
            pass
    return 0


cdef int leave_task(task, loop, before) except -1:
    """Undo what `enter_task` has done."""
    if before is not task:
        try:
            _tasks["_leave_task"](loop, task)
        except RuntimeError:
            # `call_outside` had no memory to enter it again.
            if _tasks["current_task"](loop) is not None:
                raise
        if before is not None:
            _tasks["_enter_task"](loop, before)
    return 0
