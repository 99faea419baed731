"""One Chromium for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from tests.browser.devtools import Browser, chromium
from tests.support import PATIENCE


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with (
        chromium(tmp_path_factory.mktemp("chromium")) as address,
        connect(address, max_size=None, proxy=None, compression=None, open_timeout=PATIENCE) as devtools,
    ):
        browser = Browser(devtools)
        yield browser
        browser.call("Browser.close")
