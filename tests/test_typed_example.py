"""The typed example: it runs, and has every attribute that the documentation has. `make lint` checks its types."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import tornado_ws
from tests.programs import ROOT, run
from tornado_ws import errors
from tornado_ws.pubsub.broker import Lag, TopicCounters
from tornado_ws.pubsub.counting import NameCounters
from tornado_ws.pubsub.messages import Message

APPLICATION = ROOT / "examples" / "typed" / "application.py"

#: What is for programs, not for their types.
ELSEWHERE = {"install", "uninstall"}
#: Attributes that have no docstring of their own.
SET_BY_THE_CONSTRUCTOR = {
    tornado_ws.WebSocketHandler: ["ws_connection", "close_code", "close_reason"],
    tornado_ws.WebSocketClientConnection: ["protocol", "close_code", "close_reason", "connect_future"],
    tornado_ws.Resume: ["positions", "argument"],
    tornado_ws.ResumedConnection: ["connection", "close_code", "close_reason"],
    tornado_ws.WebSocketProtocol: ["stream"],
    Message: ["topic", "data", "position"],
}
#: Those whose docstring names their attributes.
NAMED: list[type] = [tornado_ws.Subscription, *(each for _, each in inspect.getmembers(errors, inspect.isclass))]
COUNTS = [tornado_ws.Counters, tornado_ws.ProcessCounters, TopicCounters, NameCounters]
TUPLES: list[Any] = [tornado_ws.Latency, tornado_ws.Position, tornado_ws.Envelope, tornado_ws.ClosedAll, Lag]
METHODS = [
    tornado_ws.WebSocketHandler,
    tornado_ws.WebSocketClientConnection,
    tornado_ws.WebSocketProtocol,
    tornado_ws.ResumedConnection,
    tornado_ws.Topics,
    tornado_ws.Counters,
]


def documented() -> set[str]:
    found = {name for name in tornado_ws.__all__ if name not in ELSEWHERE}
    for names in SET_BY_THE_CONSTRUCTOR.values():
        found.update(names)
    for counts in COUNTS:
        found.update(field.name for field in dataclasses.fields(counts))
    for values in TUPLES:
        found.update(values._fields)
    for cls in METHODS:
        for name, value in vars(cls).items():
            if not name.startswith("_") and (callable(value) or isinstance(value, property)) and value.__doc__:
                found.add(name)
    for named in NAMED:
        if named.__name__ in tornado_ws.__all__:
            found.update(re.findall(r"``(\w+)``", named.__doc__ or ""))
    return found


def used(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for field in ("attr", "arg", "name", "id"):
            value: Any = getattr(node, field, None)
            if isinstance(value, str):
                found.add(value)
    return found


def test_every_documented_attribute_is_in_the_application() -> None:
    assert sorted(documented() - used(APPLICATION)) == []


@pytest.mark.parametrize("name", ["latency", "counters", "buffered_amount", "is_away", "close_code", "recovered"])
def test_what_is_looked_for_is_found(name: str) -> None:
    assert name in documented()


def test_the_application_runs() -> None:
    ran = run(str(APPLICATION))
    assert (ran.returncode, ran.stderr) == (0, "")
    for line in ("close_all: 0 0", "broadcast: 4 to all to all", "room/a message 0 True True", "peer: 127.0.0.1"):
        assert line in ran.stdout.splitlines()
