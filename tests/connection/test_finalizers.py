"""Messages that a finalizer writes in the middle of another one, which is compressed on the same connection.

The garbage collector runs finalizers between any two steps of ours. What is compressed goes into the peer's window
in the order of the frames, and an object of zlib that is at work takes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import Echo, connected, serving, until
from tornado_ws import broadcast
from tornado_ws.deflate import backends, codec
from tornado_ws.deflate.module_streams import Deflater
from tornado_ws.deflate.streams import StreamPool

TEXT = "a text with some words, which are the same words in each text with words"


class Interrupted:
    """Does what ``wrapped`` does, and has a finalizer run before and after each call of ``method``."""

    def __init__(self, wrapped: Any, method: str, finalizer: Callable[[], None]) -> None:
        self._wrapped = wrapped
        self._method = method
        self._finalizer = finalizer

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        if name != self._method:
            return attribute

        def interrupted(*args: Any) -> Any:
            self._finalizer()
            try:
                return attribute(*args)
            finally:
                self._finalizer()

        return interrupted


Write = Callable[[Any, str], object]

WRITES: dict[str, Write] = {
    "write_message": lambda end, text: end.write_message(text),
    "broadcast": lambda end, text: broadcast([end], text),
    "in the longer way": lambda end, text: end.write_message(text),
    "large enough for a thread": lambda end, text: end.write_message(text.ljust(2000)),
}


@pytest.mark.gen_test
@pytest.mark.parametrize("where", ["around the stream", "inside of it"])
@pytest.mark.parametrize("inner", WRITES)
@pytest.mark.parametrize("outer", ["write_message", "broadcast", "in the longer way"])
@pytest.mark.parametrize("backend", ["zlib", "zlib_ng", "isal"])
async def test_a_message_in_the_middle_of_another(
    outer: str, inner: str, where: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "inside of it":
        # The native engine's own streams have no inside: they do it in one step.
        monkeypatch.setattr(codec, "_pool", StreamPool())
        monkeypatch.setattr(backends, "library_of", lambda backend: None)
    ends: list[Any] = []

    class Handler(Echo):
        def get_compression_options(self) -> dict[str, Any]:
            options: dict[str, Any] = {"backend": backend}
            return {**options, "offload_size": 1000} if inner == "large enough for a thread" else options

        def open(self) -> None:
            ends.append(self)

    async with serving(Handler) as url, connected(url, compression_options={}) as conn:
        await until(lambda: ends)
        connection: Any = ends[0].ws_connection
        if "in the longer way" in (outer, inner):
            connection._write_frame = connection._write_frame
        written: list[str] = []
        busy = False

        def finalizer() -> None:
            nonlocal busy
            if not busy:
                busy = True
                written.append(f"{TEXT} {len(written)}")
                WRITES[inner](ends[0], written[-1])
                busy = False

        # The stream is made with the first one.
        await ends[0].write_message(f"first {TEXT}")
        assert await conn.read_message() == f"first {TEXT}"
        compressor = connection._compressor
        stream = compressor._stream
        if where == "around the stream":
            for method in ("deflate", "sent"):
                compressor._stream = Interrupted(compressor._stream, method, finalizer)
        else:
            assert isinstance(stream, Deflater)
            for method in ("compress", "flush"):
                stream._stream = Interrupted(stream._stream, method, finalizer)
        WRITES[outer](ends[0], f"outer {TEXT}")
        # From here on there is none.
        busy = True
        assert written or outer == "broadcast"
        received = [str(await conn.read_message()).rstrip() for _ in range(len(written) + 1)]
        assert sorted(received) == sorted([f"outer {TEXT}", *written])
        for text in ("a word", f"last {TEXT}"):
            await ends[0].write_message(text)
            assert await conn.read_message() == text
