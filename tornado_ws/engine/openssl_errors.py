"""What Python's ssl module leaves in OpenSSL's queue of errors (CPython issue 148594).

The queue is the thread's. What is left there, after a reset for example, fails the next call of another connection that
should only have had to wait.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

#: What is raised where there is nothing to read, or no room.
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@functools.cache
def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def forget_errors() -> None:
    """Empty the queue of this thread."""
    # There is no function for it. A list without ciphers is refused, and what is in the queue goes with that error.
    with contextlib.suppress(ssl.SSLError):
        _context().set_ciphers("")


def call(reads: bool, function: Callable[..., _T], *args: object) -> _T:
    """Return what a function returns that reads, or writes, by the ssl module.

    It is called again where it fails: the error may be another connection's. Raises OSError where that fails too.
    """
    try:
        return function(*args)
    except _WOULD_BLOCK:
        raise
    except OSError:
        forget_errors()
        try:
            result = function(*args)
        except _WOULD_BLOCK:
            raise
        except OSError:
            forget_errors()
        else:
            # A socket tells of a reset once, and of an end then.
            if result != 0 or not reads:
                return result
        raise
