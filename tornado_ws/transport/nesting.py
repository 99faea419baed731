"""A loop that runs inside a callback of it, as nest_asyncio lets it: surgery on what asyncio keeps of a descriptor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class _NoContext:
    """Stands in the place of a context and enters none: callbacks of the application have their connection's."""

    @staticmethod
    def run(callback: Callable[..., Any], *args: Any) -> Any:
        return callback(*args)


_no_context = _NoContext()


def serve_inside_callbacks(loop: Any, fd: int) -> None:
    """Let the inner loop serve the sockets that ``fd`` tells of.

    asyncio enters one context for all events of a descriptor, and it cannot be entered twice: each turn of the inner
    loop would log an error, and nobody would get a message.
    """
    try:
        handles = [handle for handle in loop._selector.get_key(fd).data if handle is not None]
    except (AttributeError, KeyError, TypeError):
        # Not asyncio's own selector: no such loop is known to run inside a callback.
        return
    for handle in handles:
        handle._context = _no_context
