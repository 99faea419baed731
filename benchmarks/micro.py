"""Microbenchmarks of both engines: ``python -m benchmarks.micro [pyperf's options, say --fast]``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tornado.util import _websocket_mask

from benchmarks import payloads
from tornado_ws import engine
from tornado_ws.engine import pure

_MASK = b"\x12\x34\x56\x78"
_LIMIT = 64 * 1024 * 1024
_SIZES = {"32 B": 32, "1 KiB": 1024, "16 KiB": 16 * 1024, "1 MiB": 1024 * 1024}
_TEXTS = {
    "ASCII": "The quick brown fox jumps over the lazy dog. ",
    "Latin": "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. ",
    "Japanese": "いろはにほへとちりぬるを。",
}


def engines() -> dict[str, Any]:
    """Return what there is, by name, the pure one first."""
    found: dict[str, Any] = {"python": pure}
    if engine.name != "python":
        found[engine.name] = engine
    return found


def client_frames(messages: Sequence[bytes], first_byte: int = 0x81) -> bytes:
    """Return masked frames, one after the other."""
    return b"".join(_client_frame(first_byte, message) for message in messages)


def _client_frame(first_byte: int, payload: bytes) -> bytes:
    header = pure.encode_frame(first_byte, payload, False)[: -len(payload) or None]
    return bytes((header[0], header[1] | 0x80)) + header[2:] + _MASK + _websocket_mask(_MASK, payload)


def parse(reader: Any, chunk: bytes) -> None:
    """Let ``reader`` take everything from ``chunk``."""
    reader.feed(chunk)
    for event in reader:
        if event is None:
            return


def _parsed() -> Iterator[tuple[str, bytes, int]]:
    """Yield what is parsed: a name, the chunk, the messages in it."""
    small = [text.encode() for text in payloads.text(32, 64)]
    yield "parse 64 x 32 B text", client_frames(small), len(small)
    for size in ("1 KiB", "16 KiB", "1 MiB"):
        yield f"parse {size} binary", client_frames(payloads.binary(_SIZES[size], 1), 0x82), 1
    for name, text in _TEXTS.items():
        encoded = text.encode()
        whole = encoded * (16 * 1024 // len(encoded))
        yield f"UTF-8 {name} 16 KiB, one frame", client_frames([whole]), 1
        # Torn inside its characters too.
        first, second = whole[: len(whole) // 2 + 1], whole[len(whole) // 2 + 1 :]
        torn = _client_frame(0x01, first) + _client_frame(0x80, second)
        yield f"UTF-8 {name} 16 KiB, two fragments", torn, 1


def main() -> int:
    if importlib.util.find_spec("pyperf") is None:
        print("pyperf is missing: pip install '.[bench]'", file=sys.stderr)
        return 1
    pyperf: Any = importlib.import_module("pyperf")
    # Its workers get a clean environment, and have to find us and the same engine.
    runner = pyperf.Runner(program_args=("-m", "benchmarks.micro"))
    runner.argparser.set_defaults(inherit_environ=["PYTHONPATH", "TORNADO_WS_ENGINE"])
    for name, module in engines().items():
        for size, count in _SIZES.items():
            (payload,) = payloads.binary(count, 1)
            runner.bench_func(f"mask {size} [{name}]", module.apply_mask, _MASK, payload)
        for size, count in _SIZES.items():
            (payload,) = payloads.binary(count, 1)
            runner.bench_func(f"encode {size} [{name}]", module.encode_frame, 0x82, payload, False)
            runner.bench_func(f"encode {size}, masked [{name}]", module.encode_frame, 0x82, payload, True)
        for what, chunk, messages in _parsed():
            reader = module.FrameReader(True, _LIMIT)
            runner.bench_func(f"{what} [{name}]", parse, reader, chunk, inner_loops=messages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
