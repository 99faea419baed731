"""What the library and Tornado log, as lines of a command: peers' text is in it, and must not control a terminal."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def log_shown(note: Callable[[str], object], problem: Callable[[str], object], level: int) -> Iterator[None]:
    """Have what is logged from ``level`` on shown: by ``problem`` from WARNING on, else by ``note``; both escape it."""
    handler = _Handler(note, problem)
    logger = logging.getLogger("tornado")
    before, is_passed_on = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = is_passed_on


class _Handler(logging.Handler):
    def __init__(self, note: Callable[[str], object], problem: Callable[[str], object]) -> None:
        super().__init__()
        self._note = note
        self._problem = problem

    def emit(self, record: logging.LogRecord) -> None:
        show = self._problem if record.levelno >= logging.WARNING else self._note
        show(record.getMessage())
