"""What differs between the versions of Tornado, each difference once."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

_P = ParamSpec("_P")
_R = TypeVar("_R")

#: Whether Tornado compares the origin with the request itself, and asks for others only: from 6.6 on.
TORNADO_CHECKS_ORIGIN = hasattr(RequestHandler, "_check_cross_origin")


def accepts_io_loop(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let ``function`` be called with the ``io_loop`` that came second until Tornado 5.0, or by name."""

    @functools.wraps(function)
    def without_io_loop(*args: Any, **kwargs: Any) -> _R:
        # In the old order a callback stands where a number of seconds does in the new one.
        old_order = len(args) > 1 and (
            isinstance(args[1], IOLoop) or (args[1] is None and len(args) > 2 and callable(args[2]))
        )
        if old_order or "io_loop" in kwargs:
            warnings.warn("the io_loop argument is deprecated; the current loop is used", DeprecationWarning, 2)
            kwargs.pop("io_loop", None)
        return function(*(args[:1] + args[2:] if old_order else args), **kwargs)

    return cast("Callable[_P, _R]", without_io_loop)
