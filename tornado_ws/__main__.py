"""``python -m tornado_ws publish TOPIC [MESSAGE]``: publish from a shell, or from a program of any kind."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from tornado_ws.errors import BrokerError
from tornado_ws.pubsub.settings import Settings
from tornado_ws.pubsub.topics import Topics

#: What a program that publishes has to know of the servers, or may want to bound.
_SETTINGS = ("prefix", "streams", "max_length", "publish_timeout")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what ``arguments`` say, by default those of the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(_publish(options))
    except (BrokerError, ImportError, ValueError) as error:
        print(f"tornado_ws: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tornado_ws")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    publish = commands.add_parser("publish", help="publish messages to a topic, and print their positions")
    publish.add_argument("topic", metavar="TOPIC")
    publish.add_argument("message", metavar="MESSAGE", nargs="?", help="by default what comes on standard input")
    publish.add_argument("--url", default="redis://localhost:6379/0", help="the broker; by default %(default)s")
    publish.add_argument("--lines", action="store_true", help="each line of standard input is a message")
    publish.add_argument("--binary", action="store_true", help="a binary message, else it is text in UTF-8")
    defaults = Settings()
    for name in _SETTINGS:
        default = getattr(defaults, name)
        publish.add_argument(
            "--" + name.replace("_", "-"), type=type(default), default=default, help="as in the servers; %(default)s"
        )
    return parser


async def _publish(options: argparse.Namespace) -> None:
    settings = {name: getattr(options, name) for name in _SETTINGS}
    async with Topics(options.url, **settings) as topics:
        if options.message is not None:
            messages = [options.message.encode()]
        elif options.lines:
            messages = [line.rstrip(b"\r\n") for line in sys.stdin.buffer]
        else:
            messages = [sys.stdin.buffer.read()]
        for data in messages:
            print(await topics.publish(options.topic, data if options.binary else data.decode()))


if __name__ == "__main__":
    sys.exit(main())
