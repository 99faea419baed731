from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.shim import build, missing
from tests.needs import need


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lack = missing()
    need(lack is None, lack or "")
    return build(tmp_path_factory.mktemp("shim"))
