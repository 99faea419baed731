"""``python -m tornado_ws COMMAND``."""

from __future__ import annotations

import sys

from tornado_ws.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
