"""Files of a directory, for whoever may ask for any of them."""

from __future__ import annotations

import os

from tornado.web import HTTPError, StaticFileHandler


class PublicFiles(StaticFileHandler):
    """Serves files, and ``index.html`` for a directory; lists nothing.

    404 is the answer for names that begin with a dot, in a directory of such a name too, and for what a symbolic link
    has outside of the served directory.
    """

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        found = super().validate_absolute_path(root, absolute_path)
        if found is not None:
            inside = os.path.relpath(os.path.realpath(found), os.path.realpath(root))
            for path in (os.path.relpath(found, root), inside):
                if any(part.startswith(".") for part in path.split(os.sep)):
                    raise HTTPError(404)
        return found
