"""`install`: from then on ``tornado.websocket`` is this package, for everybody in the process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import tornado

_NAME = "tornado.websocket"


def install() -> None:
    """Put `tornado_ws` in the place of `tornado.websocket`, for ``import`` in all its forms and for every package.

    It has to be called before anything that uses ``tornado.websocket`` is imported. Calling it again does nothing.

    :raises RuntimeError: with nothing changed, when Tornado's own module or a class or function of it is in somebody's
        hands already; it names who.
    """
    ours = sys.modules["tornado_ws"]
    theirs = sys.modules.get(_NAME)
    if theirs is ours:
        return
    if theirs is not None:
        holders = sorted(set(_holders(theirs)))
        if holders:
            raise RuntimeError(
                "tornado_ws.install() has to be called before tornado.websocket is imported; "
                f"these have it from Tornado already: {', '.join(holders)}"
            )
        _replaced.append(theirs)
    sys.modules[_NAME] = ours
    vars(tornado)["websocket"] = ours


def uninstall() -> None:
    """Undo `install`, for tests. What was given out meanwhile stays ours. Does nothing when not installed."""
    if sys.modules.get(_NAME) is not sys.modules["tornado_ws"]:
        return
    del sys.modules[_NAME]
    del vars(tornado)["websocket"]
    if _replaced:
        theirs = _replaced.pop()
        sys.modules[_NAME] = theirs
        vars(tornado)["websocket"] = theirs


#: Tornado's own module, if it had been imported (and not used) when `install` was called.
_replaced: list[ModuleType] = []


def _holders(theirs: ModuleType) -> Iterator[str]:
    """Yield "module.name" for everything that came out of Tornado's module into another one, and its subclasses."""
    own = {id(value): value for value in vars(theirs).values() if getattr(value, "__module__", None) == _NAME}
    own[id(theirs)] = theirs
    # multiprocessing gives the main module a second name; the first one is told.
    modules = {id(module): (name, module) for name, module in reversed(sys.modules.items())}
    for name, module in modules.values():
        if module is theirs or not isinstance(module, ModuleType):
            continue
        for attribute, value in list(vars(module).items()):
            if id(value) in own and not (module is tornado and attribute == "websocket"):
                yield f"{name}.{attribute}"
    for value in own.values():
        if isinstance(value, type):
            subclass: type
            for subclass in value.__subclasses__():
                if subclass.__module__ != _NAME:
                    yield f"{subclass.__module__}.{subclass.__qualname__}"
