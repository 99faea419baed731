"""Methods that may be replaced on an instance, and that know whether they were."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol


class HasReplaceableMethods(Protocol):
    """An object with `ReplaceableMethod`s."""

    _replacements: dict[str, Callable[..., Any]] | None

    def _replace_steps(self) -> None:
        """One of them was replaced."""


class ReplaceableMethod:
    """A method that every message passes, unless nobody put anything in its place: then the way is shorter.

    Tornado's tests replace these methods on instances, and subclasses override them. Either sets ``_steps_replaced``.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self._name = method.__name__

    def __get__(self, connection: HasReplaceableMethods | None, owner: type) -> Any:
        if connection is None:
            return self._method
        if connection._replacements is not None and self._name in connection._replacements:
            return connection._replacements[self._name]
        return functools.partial(self._method, connection)

    def __set__(self, connection: HasReplaceableMethods, replacement: Callable[..., Any]) -> None:
        # In a dict of its own: the connection's, once somebody looks at it, takes several times the memory.
        connection._replacements = {**(connection._replacements or {}), self._name: replacement}
        connection._replace_steps()


def all_replaceable(owner: type, *names: str) -> bool:
    """Whether all these methods of ``owner`` are still replaceable, and none was overridden."""
    return all(isinstance(inspect.getattr_static(owner, name), ReplaceableMethod) for name in names)
