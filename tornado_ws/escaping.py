"""Text from others, escaped and cut so that it can stand in a log line or in an exception."""

from __future__ import annotations

import re

#: Characters that are shown of a text, unless the caller says otherwise.
MOST_SHOWN = 200
#: Of the name of a subprotocol.
_MOST_OF_NAME = 24

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*:/*"


def shown(text: object, most: int = MOST_SHOWN) -> str:
    """Return ``text`` in quotes, on one line, escaped and cut to ``most`` characters, then with "…" behind it.

    Escaped is what is not printable: line ends, control characters, escape sequences, marks that change the direction
    of writing. Anything but str and bytes is shown as its ``repr``, which is cut too.
    """
    if isinstance(text, str | bytes):
        return repr(text[:most]) + ("…" if len(text) > most else "")
    whole = repr(text)
    return plain(whole, most)


def plain(text: object, most: int = MOST_SHOWN) -> str:
    """Return ``str(text)`` as `shown` does, without the quotes: for a sentence with such text in it."""
    whole = str(text)
    cut = whole[:most]
    if not cut.isprintable():
        cut = "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut)
    return cut + ("…" if len(whole) > most else "")


def shown_names(names: list[str]) -> str:
    """Return offered subprotocols as `shown` does, and of each no more than the beginning.

    A page has no other header to put a token in.
    """
    return plain(f"[{', '.join(shown(name, _MOST_OF_NAME) for name in names)}]")


def without_password(url: str) -> str:
    """Return ``url`` without what stands before the last "@" of its authority, and without query and fragment.

    Both are where secrets stand. A URL that is wrong loses them too: what cannot be split is cut where they may begin.
    """
    scheme = re.match(_SCHEME, url)
    begin = scheme.end() if scheme else 0
    rest = re.split(r"[?#]", url[begin:], maxsplit=1)[0]
    # A password may hold a "/" that should have been escaped, so what is behind the last "@" counts, wherever it is.
    return url[:begin] + rest.rpartition("@")[2]
