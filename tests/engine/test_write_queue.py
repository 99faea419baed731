"""What waits for the kernel: the same bytes in the same order, however they came and however they are taken."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from tornado_ws.engine.write_queue import WriteQueue

PIECES = st.lists(st.sampled_from([0, 1, 63, 64, 65, 1000, 16383, 16384, 16385, 40_000]), max_size=8)


@given(PIECES, st.integers(0, 70_000), st.lists(st.tuples(st.integers(0, 50_000), PIECES), max_size=30))
def test_all_comes_out_as_it_came_in(first: list[int], begin: int, steps: list[tuple[int, list[int]]]) -> None:
    backlog = WriteQueue()
    expected = b""
    value = 0
    offered = b""

    def append(sizes: list[int], begin: int = 0) -> None:
        nonlocal expected, value
        for size in sizes:
            value = (value + 1) % 256
            data = bytes([value]) * size
            backlog.append(data, min(begin, size))
            expected += data[begin:]

    append(first, begin)
    for most, more in [*steps, (sys.maxsize, []), (sys.maxsize, [])]:
        append(more)
        while backlog:
            piece = bytes(backlog.first())
            # OpenSSL demands it of what is tried again.
            assert piece.startswith(offered)
            assert expected.startswith(piece)
            count = min(most, len(piece))
            most -= count
            backlog.sent(count)
            expected = expected[count:]
            offered = piece if count == 0 else b""
            assert len(backlog) == len(expected)
            if most == 0:
                break
    assert not expected


def test_what_is_large_enough_is_not_copied() -> None:
    frame = bytes(64)
    small = bytes(63)
    before = sys.getrefcount(frame), sys.getrefcount(small)
    backlogs = [WriteQueue() for _ in range(10)]
    for backlog in backlogs:
        backlog.append(frame)
        backlog.append(small)
    assert (sys.getrefcount(frame), sys.getrefcount(small)) == (before[0] + 10, before[1])
    for backlog in backlogs:
        backlog.sent(len(frame))
    assert sys.getrefcount(frame) == before[0]
