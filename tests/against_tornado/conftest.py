"""What is compared with is Tornado 6.6: older ones do other things, or do not come to an end."""

from __future__ import annotations

import tornado

collect_ignore_glob = ["test_*.py"] if tornado.version_info < (6, 6) else []
