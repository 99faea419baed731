"""Which engine a process uses."""

from __future__ import annotations

import logging
import runpy
import sys
from types import ModuleType
from typing import Any

import pytest

import tornado_ws.engine
from tests.engine.reading import ENGINES, Engine
from tests.needs import need_native_engine
from tornado_ws.engine import pure


def chosen() -> dict[str, Any]:
    # Run, and not imported anew: what the package has imported stays as it is.
    return runpy.run_path(tornado_ws.engine.__file__)


def is_pure(found: dict[str, Any]) -> bool:
    return (
        found["name"] == "python"
        and found["FrameReader"] is pure.FrameReader
        and found["encode_frame"] is pure.encode_frame
        and found["apply_mask"] is pure.apply_mask
        and found["Channel"] is pure.Channel
        and found["serve_ready"] is pure.serve_ready
    )


def test_the_engine_in_use_is_one_of_those_under_test() -> None:
    in_use = [getattr(tornado_ws.engine, name) for name in Engine._fields[1:]]
    assert in_use in [list(engine[1:]) for engine in ENGINES]


def test_the_native_engine_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    need_native_engine()
    monkeypatch.delenv("TORNADO_WS_ENGINE", raising=False)
    found = chosen()
    native = sys.modules["tornado_ws.engine._native"]
    assert found["name"] == "native"
    assert found["reason"] == "it was built with this installation"
    for name in ("Channel", "FrameReader", "apply_mask", "encode_frame", "serve_ready"):
        assert found[name] is getattr(native, name)


def test_the_environment_picks_the_pure_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORNADO_WS_ENGINE", "python")
    found = chosen()
    assert is_pure(found)
    assert found["reason"] == "TORNADO_WS_ENGINE=python is in the environment"


def test_the_pure_engine_is_used_where_no_other_was_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORNADO_WS_ENGINE", raising=False)
    monkeypatch.setitem(sys.modules, "tornado_ws.engine._native", None)
    found = chosen()
    assert is_pure(found)
    assert found["reason"].startswith("this installation was made without the native one")


def test_the_pure_engine_is_used_where_the_other_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORNADO_WS_ENGINE", raising=False)
    # Without its names.
    monkeypatch.setitem(sys.modules, "tornado_ws.engine._native", ModuleType("broken"))
    found = chosen()
    assert is_pure(found)
    assert found["reason"].startswith("the native one cannot be imported: cannot import name 'Channel'")


def test_the_gil_stays_off_where_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORNADO_WS_ENGINE", raising=False)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    found = chosen()
    assert is_pure(found)
    assert "PYTHON_GIL=1" in found["reason"]


def test_the_engine_is_logged_where_it_is_chosen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tornado_ws")
    found = chosen()
    said = f"tornado_ws uses its {found['name']} engine: {found['reason']}"
    assert caplog.record_tuples == [("tornado_ws", logging.INFO, said)]
