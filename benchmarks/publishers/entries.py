"""Writes entries to a stream of `tornado_ws.Topics` as fast as Redis takes them.

They are for a topic that nobody has. A last one is for the topic that the client has, and tells it that all before it
were read.
"""

from __future__ import annotations

import asyncio
import itertools
from urllib.parse import urlsplit

from hiredis import pack_command

from benchmarks.publishers.common import TOPIC, Options, Publish, parse_options, run
from tornado_ws.pubsub.settings import Settings
from tornado_ws.pubsub.wire import Keys, add_command


async def begin(options: Options) -> Publish:
    settings = Settings()
    keys = Keys(settings.prefix, settings.streams)
    last = TOPIC.format(0)
    number = keys.number_of(last)
    nobodys = next(name for name in map("nobody/{}".format, itertools.count()) if keys.number_of(name) == number)
    numbers = itertools.count()
    address = urlsplit(options.redis)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)

    def packed(topic: str, message: str) -> bytes:
        data = message.encode()
        command = add_command(keys.stream(number), settings.max_length, topic, data, False, "benchmark", next(numbers))
        packed_command: bytes = pack_command(command)
        return packed_command

    async def publish(messages: list[tuple[str, str]]) -> None:
        entries = [packed(nobodys, message) for _, message in messages[:-1]]
        writer.write(b"".join([*entries, packed(*messages[-1])]))
        # A reply is an id: its length in one line, and itself in another.
        lines = 2 * len(messages)
        while lines > 0:
            got = await reader.read(1 << 16)
            if not got or b"-ERR" in got:
                raise SystemExit(f"Redis said {got[:100]!r}")
            lines -= got.count(b"\n")

    return publish


if __name__ == "__main__":
    run(parse_options(), begin)
