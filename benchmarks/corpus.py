"""What compression costs and saves, by kind of message and by setting: ``python -m benchmarks.corpus [--rounds N]``.

Writes ``benchmarks/results/corpus.md``. Sizes and memory are the same in every run with the same libraries; times are
medians of the rounds, which are interleaved.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.metadata
import platform
import statistics
import time
import tracemalloc
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import payloads
from tornado_ws.deflate.codec import PerMessageDeflateCompressor, PerMessageDeflateDecompressor
from tornado_ws.deflate.options import deflate_options

_RESULT = Path(__file__).parent / "results" / "corpus.md"
_LIMIT = 1 << 24
_TEXT_SIZE = 2048

#: Beside the default, what each option does by itself.
SETTINGS: dict[str, dict[str, Any]] = {
    "the default: zlib, level 6, mem_level 8": {},
    "mem_level 9": {"mem_level": 9},
    "mem_level 5": {"mem_level": 5},
    "mem_level 1": {"mem_level": 1},
    "level 1": {"compression_level": 1},
    "level 3": {"compression_level": 3},
    "level 9": {"compression_level": 9},
    "filtered strategy": {"strategy": zlib.Z_FILTERED},
    "windows of 12 bits": {"max_wbits": 12},
    "windows of 9 bits": {"max_wbits": 9},
    "no context takeover": {"server_no_context_takeover": True},
    "takeover_memory 0": {"takeover_memory": 0},
    "zlib_ng, level 6": {"backend": "zlib_ng"},
    "zlib_ng, level 1": {"backend": "zlib_ng", "compression_level": 1},
    "isal, level 1": {"backend": "isal"},
    "isal, level 3": {"backend": "isal", "compression_level": 3},
    "auto": {"backend": "auto"},
}


def corpora() -> dict[str, list[bytes]]:
    """Return messages by their kind."""
    topics: Mapping[str, str] = importlib.import_module("pydoc_data.topics").topics
    text = "\n".join(topics[name] for name in sorted(topics)).encode()[: 128 * _TEXT_SIZE]
    pages = [page.encode() for page in payloads.large_json(24)]
    return {
        "JSON, 93 B": [message.encode() for message in payloads.small_json(500)],
        "JSON, 14 KiB": pages,
        "English, 2 KiB": [text[at : at + _TEXT_SIZE] for at in range(0, len(text), _TEXT_SIZE)],
        "compressed already, 2 KiB": [zlib.compress(page, 9)[:2048] for page in pages],
        "random, 4 KiB": [bytes(message) for message in payloads.binary(4096, 24)],
    }


class Figures(NamedTuple):
    """Of one setting and corpus: bytes and microseconds a message, KiB a connection."""

    size: float
    ratio: float
    deflate_us: float
    inflate_us: float
    kib: float


def _ends(options: dict[str, Any]) -> tuple[PerMessageDeflateCompressor, PerMessageDeflateDecompressor]:
    parsed = deflate_options(options)
    takeover = not parsed.server_no_context_takeover
    return (
        PerMessageDeflateCompressor(takeover, parsed.max_wbits, parsed),
        PerMessageDeflateDecompressor(takeover, parsed.max_wbits, _LIMIT, parsed),
    )


def _timed(options: dict[str, Any], messages: list[bytes]) -> tuple[float, float]:
    compressor, decompressor = _ends(options)
    begun = time.perf_counter()
    deflated = [compressor.compress(message) for message in messages]
    between = time.perf_counter()
    for payload in deflated:
        decompressor.decompress(payload)
    ended = time.perf_counter()
    return (between - begun) / len(messages) * 1e6, (ended - between) / len(messages) * 1e6


def _size_and_memory(options: dict[str, Any], messages: list[bytes]) -> tuple[float, float]:
    """Return the bytes of a payload, and the KiB that both directions of a connection keep after all messages."""
    size = 0
    gc.collect()
    # In the pool, and not of one connection.
    warm, _ = _ends(options)
    for message in messages:
        warm.compress(message)
    del warm
    gc.collect()
    tracemalloc.start()
    compressor, decompressor = _ends(options)
    for message in messages:
        payload = compressor.compress(message)
        size += len(payload)
        assert decompressor.decompress(payload) == message
    del payload, message
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / len(messages), kept / 1024


def measure(rounds: int) -> dict[str, dict[str, Figures]]:
    """Return figures by corpus and setting."""
    kinds = corpora()
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for kind, messages in kinds.items():
            for setting, options in SETTINGS.items():
                times.setdefault((kind, setting), []).append(_timed(options, messages))
    found: dict[str, dict[str, Figures]] = {}
    for kind, messages in kinds.items():
        plain = sum(map(len, messages)) / len(messages)
        for setting, options in SETTINGS.items():
            size, kib = _size_and_memory(options, messages)
            deflate, inflate = (statistics.median(each) for each in zip(*times[kind, setting], strict=True))
            found.setdefault(kind, {})[setting] = Figures(size, plain / size, deflate, inflate, kib)
    return found


def render(found: dict[str, dict[str, Figures]], rounds: int) -> str:
    """Return the tables in Markdown."""
    lines = [
        "# What compression costs and saves",
        "",
        f"Made by `python -m benchmarks.corpus --rounds {rounds}`. *bytes* is the payload of a message on the wire, "
        "*ratio* how many times larger it was, µs are a message's, and *KiB kept* is what both directions of one "
        "connection hold after all messages, live compressor included.",
        "",
        f"CPython {platform.python_version()}, zlib {zlib.ZLIB_RUNTIME_VERSION}, "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("zlib-ng", "isal"))
        + ".",
    ]
    for kind, settings in found.items():
        lines += ["", f"## {kind}", "", "| setting | bytes | ratio | deflate µs | inflate µs | KiB kept |"]
        lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
        lines += [
            f"| {setting} | {each.size:.1f} | {each.ratio:.2f} | {each.deflate_us:.1f} | {each.inflate_us:.1f} "
            f"| {each.kib:.1f} |"
            for setting, each in settings.items()
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=_RESULT)
    arguments = parser.parse_args()
    arguments.out.write_text(render(measure(arguments.rounds), arguments.rounds))
    print(f"Written to {arguments.out}")


if __name__ == "__main__":
    main()
