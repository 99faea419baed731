"""Python imports this at its start where the folder is first on PYTHONPATH, as in children of `tornado_ws.run`.

It arms the finder, where there is one, and makes way for the `sitecustomize` that it hides. Such a child can be any
Python, so nothing here is newer than Python 2.
"""

import os
import sys

_folder = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _folder]

try:
    from _tornado_ws_finder import arm
except ImportError:
    # Another environment than that of `run`, with another Tornado.
    pass
else:
    arm()

# What this raises, an ImportError for want of another one too, is for the module `site` as it would be without us.
del sys.modules["sitecustomize"]
import sitecustomize  # type: ignore[import-not-found] # noqa: E402, F401
