"""Turns the fixtures on, for all tests of the folder."""

from __future__ import annotations

import pytest

pytest_plugins = ["tornado_ws.testing.plugin"]


@pytest.fixture
def anyio_backend() -> str:
    """For the tests under anyio: Tornado needs asyncio."""
    return "asyncio"
