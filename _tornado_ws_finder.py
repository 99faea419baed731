"""A finder for ``tornado.websocket``, which gives `tornado_ws` in its place; see `arm`.

It stands beside the package, since importing the package imports Tornado, and needs nothing but the standard library:
programs that have no use for either import it too.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_NAME = "tornado.websocket"


class _Finder:
    """Makes the import of `_NAME` one of `tornado_ws`, and a call of `tornado_ws.install`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _NAME:
            return None
        from importlib.machinery import ModuleSpec

        try:
            import tornado_ws  # noqa: F401
        except Exception as error:
            _disarm()
            if getattr(error, "name", None) != "tornado_ws":
                _warn(f"{_NAME} is Tornado's own, since tornado_ws cannot be imported: {error!r}")
            return None
        return ModuleSpec(_NAME, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system: `exec_module` replaces what that makes."""

    def exec_module(self, module: ModuleType) -> None:
        _disarm()
        # Or `install` would take the module that was made for us for Tornado's.
        sys.modules.pop(_NAME, None)
        sys.modules["tornado_ws"].install()


_finder = _Finder()


def arm() -> None:
    """Have the first import of ``tornado.websocket`` install `tornado_ws`, if that can be imported.

    A program that never imports ``tornado.websocket`` pays nothing but this call.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def _disarm() -> None:
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)


def arm_if_asked() -> None:
    """Call `arm` if the environment has ``TORNADO_WS=install``. Any other value that is not empty gives a warning."""
    value = os.environ.get("TORNADO_WS", "")
    if value == "install":
        arm()
    elif value:
        _warn(f"TORNADO_WS={value!r} in the environment has no meaning; TORNADO_WS=install has")


#: A virtual environment's .pth files are run twice.
_told: set[str] = set()


def _warn(text: str) -> None:
    # The module `warnings` has a cost, and -W error would make a program fail that has worked with Tornado's module.
    if text not in _told:
        _told.add(text)
        print(f"tornado_ws: {text}", file=sys.stderr)
