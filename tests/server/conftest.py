"""What tests of both HTTP servers compare beside bytes."""

from tests.server.sites import http_log as http_log
