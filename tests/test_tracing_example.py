"""``examples/tracing``: what it prints of one conversation."""

from __future__ import annotations

import json
from typing import Any

from tests.programs import ROOT, run


def test_a_conversation_is_told_from_both_ends() -> None:
    done = run(str(ROOT / "examples" / "tracing" / "tracing.py"))
    assert (done.returncode, done.stderr) == (0, "")
    printed = list(objects(done.stdout))
    spans = [each for each in printed if "kind" in each]
    assert sorted(span["name"] for span in spans) == [
        "GET",
        r"GET /room/(\w+)",
        "WebSocket",
        r"WebSocket /room/(\w+)",
    ]
    assert len({span["context"]["trace_id"] for span in spans}) == 1
    assert [len(span["events"]) for span in spans if span["name"].startswith("WebSocket")] == [4, 4]
    (metrics,) = (each for each in printed if "resource_metrics" in each)
    (scope,) = metrics["resource_metrics"][0]["scope_metrics"]
    messages = next(metric for metric in scope["metrics"] if metric["name"] == "websocket.messages")
    # Two there and two back, of both ends.
    assert [point["value"] for point in messages["data"]["data_points"]] == [4, 4]


def objects(text: str) -> Any:
    """Give one JSON value after the other."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:]
